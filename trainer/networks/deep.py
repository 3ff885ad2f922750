"""Five convolutions without padding, which leave 2 pixels of 28; the second halves the image.

After the network M5 of An, Lee, Park, Yang and So, "An Ensemble of Simple Convolutional Neural Network
Models for MNIST Digit Recognition" (arXiv 2008.10400), at a sixteenth of its multiplications.
"""

from __future__ import annotations

import keras

from trainer.networks.layers import Dropout, kernel_initializer, normalized
from trainer.precision import resolve_precision
from trainer.recipes import Params


def build(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """Five convolutions, all normalised, and dropout; no dense layer but the last."""
    dtype = resolve_precision(params.precision)
    layers = ((32, 5, 1), (48, 5, 2), (64, 5, 1), (96, 3, 1), (128, 3, 1))
    for block, (filters, kernel, strides) in enumerate(layers, start=1):
        convolution = keras.layers.Conv2D(
            filters,
            kernel,
            strides,
            use_bias=False,
            kernel_initializer=kernel_initializer(params),
            dtype=dtype,
            name=f"conv{block}",
        )
        x = normalized(convolution(x), dtype, block)
        if strides > 1:
            x = Dropout(params.dropout, seed=params.seed + block, dtype=dtype, name=f"dropout{block}")(x)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    return Dropout(params.dropout, seed=params.seed, dtype=dtype, name="dropout")(x)
