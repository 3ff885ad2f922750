"""A small residual network, for pictures of 32 to 128 pixels.

After He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385), with three
stages of two blocks. The stem halves the picture, once more for each doubling of 28 pixels; so the work per
picture grows little with its size: 26 million multiplications at 32 x 32 x 3, 42 million at 128 x 128 x 3.
"""

from __future__ import annotations

import keras

from trainer.networks.layers import Dropout, FusedBatchNormalization, doublings, kernel_initializer
from trainer.precision import resolve_precision
from trainer.recipes import Params

_STAGES = (32, 64, 128)  # filters
_BLOCKS = 2  # of each stage


def build(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """The stem, the stages, the mean over all places, and dropout."""
    dtype = resolve_precision(params.precision)
    height, width = x.shape[1:3]
    for halving in range(1 + doublings(height, width)):
        x = _convolution(x, params, dtype, f"stem{halving + 1}", _STAGES[0], strides=2)
        x = keras.layers.ReLU(dtype=dtype, name=f"stem{halving + 1}_relu")(x)
    for stage, filters in enumerate(_STAGES, start=1):
        for block in range(1, _BLOCKS + 1):
            first_of_later = stage > 1 and block == 1
            x = _block(x, params, dtype, f"stage{stage}_block{block}", filters, 2 if first_of_later else 1)
    x = keras.layers.GlobalAveragePooling2D(dtype=dtype, name="mean")(x)
    return Dropout(params.dropout, seed=params.seed, dtype=dtype, name="dropout")(x)


def _block(
    x: keras.KerasTensor, params: Params, dtype: str, name: str, filters: int, strides: int
) -> keras.KerasTensor:
    """Two convolutions, and the way around them."""
    around = x
    if strides > 1:
        around = keras.layers.AveragePooling2D(strides, padding="same", dtype=dtype, name=f"{name}_pool")(x)
        around = _convolution(around, params, dtype, f"{name}_around", filters, kernel=1)
    x = _convolution(x, params, dtype, f"{name}_conv1", filters, strides=strides)
    x = keras.layers.ReLU(dtype=dtype, name=f"{name}_relu1")(x)
    # Scaled by nothing at first: a block begins as the way around it.
    x = _convolution(x, params, dtype, f"{name}_conv2", filters, scale="zeros")
    x = keras.layers.Add(dtype=dtype, name=f"{name}_add")([x, around])
    return keras.layers.ReLU(dtype=dtype, name=f"{name}_relu2")(x)


def _convolution(
    x: keras.KerasTensor,
    params: Params,
    dtype: str,
    name: str,
    filters: int,
    kernel: int = 3,
    strides: int = 1,
    scale: str = "ones",
) -> keras.KerasTensor:
    """A convolution without bias, and batch normalisation."""
    x = keras.layers.Conv2D(
        filters,
        kernel,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer=kernel_initializer(params),
        dtype=dtype,
        name=name,
    )(x)
    return FusedBatchNormalization(momentum=0.9, gamma_initializer=scale, dtype=dtype, name=f"{name}_norm")(
        x
    )
