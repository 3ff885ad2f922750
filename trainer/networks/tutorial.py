"""The network of TensorFlow 1.x's "Build a Convolutional Neural Network using Estimators"."""

from __future__ import annotations

import keras

from trainer.networks.layers import Dropout, kernel_initializer
from trainer.precision import resolve_precision
from trainer.recipes import Params


def build(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """Two convolutions, each followed by a pool; a dense layer and its dropout."""
    dtype = resolve_precision(params.precision)
    for block, filters in enumerate((32, 64), start=1):
        x = keras.layers.Conv2D(
            filters,
            5,
            padding="same",
            activation="relu",
            kernel_initializer=kernel_initializer(params),
            dtype=dtype,
            name=f"conv{block}",
        )(x)
        x = keras.layers.MaxPooling2D(2, strides=2, dtype=dtype, name=f"pool{block}")(x)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    x = keras.layers.Dense(
        1024,
        activation="relu",
        kernel_initializer=kernel_initializer(params),
        dtype=dtype,
        name="dense",
    )(x)
    return Dropout(params.dropout, seed=params.seed, dtype=dtype, name="dropout")(x)
