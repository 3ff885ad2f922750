"""Few multiplications for its accuracy: both convolutions halve the image, none runs at full size."""

from __future__ import annotations

import keras

from trainer.networks.layers import Dropout, kernel_initializer, normalized
from trainer.precision import resolve_precision
from trainer.recipes import Params


def build(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """Two convolutions without pools and a dense layer, all normalised."""
    dtype = resolve_precision(params.precision)
    for block, (filters, kernel) in enumerate(((32, 6), (64, 4)), start=1):
        x = keras.layers.Conv2D(
            filters,
            kernel,
            strides=2,
            use_bias=False,
            kernel_initializer=kernel_initializer(params),
            dtype=dtype,
            name=f"conv{block}",
        )(x)
        x = normalized(x, dtype, block)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    x = keras.layers.Dense(
        128, use_bias=False, kernel_initializer=kernel_initializer(params), dtype=dtype, name="dense"
    )(x)
    x = normalized(x, dtype, block=3)
    return Dropout(params.dropout, seed=params.seed, dtype=dtype, name="dropout")(x)
