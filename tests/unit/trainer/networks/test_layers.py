"""The fused layer is Keras's layer."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.networks.layers import FusedBatchNormalization


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
