"""Few multiplications for its accuracy: every convolution halves the image, none runs at full size.

Two convolutions leave 5 x 5 pixels of MNIST's 28 x 28; one more for each doubling of that size, so that the
dense layer does not grow with the image.
"""

from __future__ import annotations

import keras

from trainer.networks.layers import Dropout, doublings, kernel_initializer, normalized
from trainer.precision import resolve_precision
from trainer.recipes import Params


def build(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """Two or more convolutions without pools and a dense layer, all normalised."""
    dtype = resolve_precision(params.precision)
    height, width = x.shape[1:3]
    # Without padding less than 12 pixels would vanish.
    padding = "valid" if min(height, width) >= 12 else "same"
    layers = ((32, 6), (64, 4), *((64, 4),) * doublings(height, width))
    for block, (filters, kernel) in enumerate(layers, start=1):
        x = keras.layers.Conv2D(
            filters,
            kernel,
            strides=2,
            padding=padding,
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
    x = normalized(x, dtype, block=len(layers) + 1)
    return Dropout(params.dropout, seed=params.seed, dtype=dtype, name="dropout")(x)
