"""A network that was trained before, with its own classes, as it is: nothing is trained."""

from __future__ import annotations

import keras

from trainer.base_network import Base, BaseInput
from trainer.features import ImageShape
from trainer.recipes import Params


def build(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """The base's logits; where it ends with a softmax, the logarithms of its probabilities."""
    base = Base.load(params, ImageShape(*x.shape[1:]), with_top=True)
    base.network.trainable = False
    x = BaseInput(base, name="base_input")(x)
    x = base.network(x, training=False)
    if len(x.shape) != 2:
        raise ValueError(f"trainer.base={params.base}: it ends with {x.shape} and not with classes")
    last = base.network.layers[-1]
    softmax = getattr(last, "activation", None) is keras.activations.softmax
    if softmax or isinstance(last, keras.layers.Softmax):
        # Of nothing there is no logarithm.
        x = keras.ops.log(keras.ops.maximum(x, keras.config.epsilon()))
    return x
