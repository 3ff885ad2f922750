"""A base network that was trained before on other pictures, and a new last layer.

The base's layers are frozen, but for the last `fine_tune` of them. Features of a frozen base are the same
in each epoch: trainer.frozen computes them once.
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
    freeze(base.network, params.fine_tune)
    x = BaseInput(base, name="base_input")(x)
    # Batch normalisation keeps the means that the base was trained with, also where layers are tuned.
    x = base.network(x, training=False)
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    x = keras.layers.Flatten(name=FEATURES)(x)
    x = FusedBatchNormalization(momentum=0.9, name="scale")(x)
    return Dropout(params.dropout, seed=params.seed, name="dropout")(x)


def freeze(network: keras.Model, tuned: int) -> None:
    """Let an optimizer change nothing but the last `tuned` layers that have weights."""
    network.trainable = True
    layers = [layer for layer in network.layers if layer.weights]
    for layer in layers[: len(layers) - tuned]:
        layer.trainable = False
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
