"""A base network that was trained before on other pictures, and a new last layer.

The base's layers are frozen while the new ones learn. Features of a frozen base are the same in each epoch:
trainer.frozen computes them once. With `fine_tune`, its last layers are trained after that.
"""

from __future__ import annotations

import keras

from trainer.base_network import Base, BaseInput
from trainer.features import ImageShape
from trainer.networks.layers import Dropout, FusedBatchNormalization
from trainer.recipes import Params

FEATURES = "features"  # the layer whose outputs a frozen base determines


def build(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """The base's features, the mean over all places, brought to one scale; dropout."""
    base = Base.load(params, ImageShape(*x.shape[1:]))
    base.network.trainable = False
    x = BaseInput(base, name="base_input")(x)
    # Batch normalisation keeps the means that the base was trained with, also when layers are tuned.
    x = base.network(x, training=False)
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    x = keras.layers.Flatten(name=FEATURES)(x)
    x = FusedBatchNormalization(momentum=0.9, name="scale")(x)
    return Dropout(params.dropout, seed=params.seed, name="dropout")(x)


def unfreeze(network: keras.Model, tuned: int) -> None:
    """Let an optimizer change the last `tuned` layers of the base that have weights, too.

    Batch normalisation is counted as a layer, but stays frozen.

    Args:
        network: what trainer.model.build_network made of `build`.
        tuned: how many layers; all, where the base has fewer.
    """
    base = next(layer for layer in network.layers if isinstance(layer, keras.Model))
    base.trainable = True
    layers = [layer for layer in base.layers if layer.weights]
    for layer in layers[: max(0, len(layers) - tuned)]:
        layer.trainable = False
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
