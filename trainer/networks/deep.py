"""Five convolutions without padding, which leave 2 pixels of 28; the second halves the image.

The first halves an image of twice that size too, and for each further doubling one more does. Images of
less than 25 pixels are padded.

After the network M5 of An, Lee, Park, Yang and So, "An Ensemble of Simple Convolutional Neural Network
Models for MNIST Digit Recognition" (arXiv 2008.10400), at a sixteenth of its multiplications.
"""

from __future__ import annotations

import keras

from trainer.networks.layers import Dropout, doublings, kernel_initializer, normalized
from trainer.precision import resolve_precision
from trainer.recipes import Params


def build(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """Five convolutions, all normalised, and dropout; no dense layer but the last."""
    dtype = resolve_precision(params.precision)
    height, width = x.shape[1:3]
    padding = "valid" if min(height, width) >= 25 else "same"
    layers = ((32, 5), (48, 5), (64, 5), (96, 3), (128, 3))
    # The blocks that halve the image, the most important first.
    halving = (2, 1, 3, 4, 5)[: 1 + doublings(height, width)]
    for block, (filters, kernel) in enumerate(layers, start=1):
        convolution = keras.layers.Conv2D(
            filters,
            kernel,
            strides=2 if block in halving else 1,
            padding=padding,
            use_bias=False,
            kernel_initializer=kernel_initializer(params),
            dtype=dtype,
            name=f"conv{block}",
        )
        x = normalized(convolution(x), dtype, block)
        if block == 2:
            x = Dropout(params.dropout, seed=params.seed + block, dtype=dtype, name=f"dropout{block}")(x)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    return Dropout(params.dropout, seed=params.seed, dtype=dtype, name="dropout")(x)
