"""The network of TensorFlow 1.x's tutorial "Deep Convolutional Neural Networks" (CIFAR-10).

After tensorflow/models, tutorials/image/cifar10/cifar10.py: 1,068,298 parameters for pictures of
24 x 24 x 3 and ten classes. The recipe's `initializer` and `dropout` are not used: the tutorial has its own
initializers, and no dropout.
"""

from __future__ import annotations

import keras

from trainer.networks.layers import LocalResponseNormalization, PerImageStandardization
from trainer.precision import resolve_precision
from trainer.recipes import Params

_DECAY = 0.004  # of the dense layers' kernels, times half of the sum of their squares


def build(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """Standardised pictures; two convolutions of 64, each pooled and normalised; dense layers."""
    dtype = resolve_precision(params.precision)
    x = PerImageStandardization(name="standardization")(x)
    x = _convolution(x, dtype, 1, bias=0.0)
    x = _pool(x, dtype, 1)
    x = LocalResponseNormalization(dtype=dtype, name="norm1")(x)
    x = _convolution(x, dtype, 2, bias=0.1)
    x = LocalResponseNormalization(dtype=dtype, name="norm2")(x)
    x = _pool(x, dtype, 2)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    for block, units in enumerate((384, 192), start=3):
        x = keras.layers.Dense(
            units,
            activation="relu",
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.04),
            bias_initializer=keras.initializers.Constant(0.1),
            kernel_regularizer=keras.regularizers.L2(_DECAY / 2),
            dtype=dtype,
            name=f"local{block}",
        )(x)
    return x


def logits_initializer() -> keras.initializers.Initializer:
    """Of the last layer's kernel."""
    return keras.initializers.TruncatedNormal(stddev=1 / 192)


def _convolution(x: keras.KerasTensor, dtype: str, block: int, bias: float) -> keras.KerasTensor:
    return keras.layers.Conv2D(
        64,
        5,
        padding="same",
        activation="relu",
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.05),
        bias_initializer=keras.initializers.Constant(bias),
        dtype=dtype,
        name=f"conv{block}",
    )(x)


def _pool(x: keras.KerasTensor, dtype: str, block: int) -> keras.KerasTensor:
    return keras.layers.MaxPooling2D(3, strides=2, padding="same", dtype=dtype, name=f"pool{block}")(x)
