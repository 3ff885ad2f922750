"""Layers that stand in for Keras's compute what these compute."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.networks.layers import Dropout, FusedBatchNormalization, kernel_initializer
from trainer.recipes import resolve


@pytest.mark.parametrize("shape", [(64, 5), (32, 7, 6, 5)], ids=["after dense", "after convolution"])
def test_it_computes_what_keras_does(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    ours, keras_s = FusedBatchNormalization(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    for step in range(3):
        x = random.normal(1.0, 2.0, shape).astype(np.float32)
        assert np.allclose(ours(x, training=True), keras_s(x, training=True), atol=1e-5), step
    assert np.allclose(ours.moving_mean, keras_s.moving_mean, atol=1e-6)
    # Over n values the fused kernel divides by n - 1, Keras by n.
    n = np.prod(shape[:-1])
    assert np.allclose(ours.moving_variance - 0.9**3, (keras_s.moving_variance - 0.9**3) * n / (n - 1))
    keras_s.set_weights(ours.get_weights())
    assert np.allclose(ours(x), keras_s(x), atol=1e-5)


def test_its_gradients_are_keras_s() -> None:
    x = tf.constant(np.random.default_rng(1).normal(size=(16, 4, 4, 3)).astype(np.float32))
    gradients = []
    for layer in (FusedBatchNormalization(), keras.layers.BatchNormalization()):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 3)
        gradients.append(tape.gradient(loss, [x, layer.gamma.value, layer.beta.value]))
    for ours, theirs in zip(*gradients, strict=True):
        assert np.allclose(ours, theirs, atol=1e-3)


def test_bfloat16_comes_and_goes_and_the_state_stays_float32() -> None:
    layer = FusedBatchNormalization(dtype="mixed_bfloat16")
    x = tf.cast(np.random.default_rng(2).normal(size=(16, 4, 4, 3)), tf.bfloat16)
    assert layer(x, training=True).dtype == tf.bfloat16
    assert {variable.dtype for variable in layer.variables} == {"float32"}


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("rate", [0.3, 0.4])
def test_dropout_keeps_the_mean_in_any_precision(dtype: str, rate: float) -> None:
    layer = Dropout(rate, seed=0, dtype=dtype)
    ones = tf.ones((1000, 1000), layer.compute_dtype)
    dropped = layer(ones, training=True)
    assert dropped.dtype == layer.compute_dtype
    # Four standard deviations of a million draws.
    assert np.mean(tf.cast(dropped, tf.float32) > 0) == pytest.approx(1 - rate, abs=0.002)
    np.testing.assert_array_equal(layer(ones), ones)


def test_dropout_in_float32_is_keras_s() -> None:
    ones = tf.ones((50, 50))
    ours, keras_s = Dropout(0.4, seed=7), keras.layers.Dropout(0.4, seed=7)
    for _ in range(2):
        np.testing.assert_array_equal(ours(ones, training=True), keras_s(ones, training=True))


@pytest.mark.parametrize(
    ("name", "reach"), [("glorot", np.sqrt(6 / (800 + 100))), ("unit_scaling", np.sqrt(3 / 800))]
)
def test_initializers_are_uniform_within_their_reach(name: str, reach: float) -> None:
    params = resolve("tutorial", initializer=name)
    drawn = np.abs(kernel_initializer(params)((800, 100)))
    assert 0.99 * reach < drawn.max() <= reach
    assert drawn.mean() == pytest.approx(reach / 2, rel=0.02)
