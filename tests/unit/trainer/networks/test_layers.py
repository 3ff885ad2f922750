"""Layers that stand in for Keras's compute what these compute."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.features import ImageShape
from trainer.model import build_network
from trainer.networks.layers import (
    Dropout,
    FusedBatchNormalization,
    IdentityFirst,
    Views,
    Whitening,
    adapt,
    kernel_initializer,
)
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


def photos(count: int = 8, side: int = 12) -> np.ndarray:
    """Smooth noise in colour."""
    random = np.random.default_rng(3).random((count, side // 3, side // 3, 3)).astype(np.float32)
    return tf.image.resize(random, (side, side)).numpy()


def test_whitening_makes_patches_independent_and_of_deviation_one() -> None:
    layer = Whitening()
    pictures = tf.constant(photos(64) - 0.5)
    layer(pictures)
    layer.adapt(pictures)

    values = layer(pictures).numpy()

    assert values.shape == (64, 11, 11, 24)
    np.testing.assert_allclose(values[..., :12], -values[..., 12:], atol=1e-4)
    flat = values[..., :12].reshape(-1, 12)
    moments = flat.T @ flat / len(flat)
    np.testing.assert_allclose(moments, np.diag(np.diag(moments)), atol=1e-3)
    # Smooth pictures have little in the directions of high frequency, which are not blown up.
    assert np.diag(moments).max() == pytest.approx(1.0, abs=0.05)
    assert [variable.name for variable in layer.trainable_variables] == ["bias"]


def test_layers_of_a_network_adapt_to_what_they_get() -> None:
    network = build_network(resolve("cifar", precision="float32"), ImageShape(16, 16, 3), 10)
    before = network.get_layer("whitening").kernel.numpy()
    adapt(network, tf.constant(photos(side=18)[:, :16, :16]))
    after = network.get_layer("whitening").kernel.numpy()
    assert not np.allclose(before, after)
    assert np.isfinite(after).all()


@pytest.mark.parametrize("filters", [2, 3, 5])
def test_identity_first_passes_channels_on(filters: int) -> None:
    images = tf.constant(photos())
    convolution = keras.layers.Conv2D(
        filters, 3, padding="same", kernel_initializer=IdentityFirst(keras.initializers.GlorotUniform())
    )
    same = min(filters, 3)
    np.testing.assert_allclose(convolution(images)[..., :same], images[..., :same], atol=1e-6)
    assert (convolution.kernel.numpy()[..., same:] != 0).all()


def test_with_mirror_images_an_answer_does_not_depend_on_the_side() -> None:
    images = photos()
    params = resolve("fast", precision="float32", mirror=True, shift=0)
    network = build_network(params, ImageShape(12, 12, 3), 10)
    plain = build_network(resolve("fast", precision="float32", shift=0), ImageShape(12, 12, 3), 10)
    plain.set_weights(network.get_weights())

    np.testing.assert_allclose(network(images), network(images[:, :, ::-1]), atol=1e-5)
    np.testing.assert_allclose(
        network(images), (plain(images) + plain(images[:, :, ::-1])) / 2, atol=1e-5, rtol=1e-4
    )
    assert network(images[:1], training=True).shape == (1, 10)


def test_views_are_the_image_moved_to_two_corners_and_their_mirror_images() -> None:
    images = photos()
    views = Views(mirror=True, shift=2)
    found = tf.split(views(images), views.count)
    # From each of the corners; two pixels of the border are mirrored there.
    np.testing.assert_array_equal(found[0], images)
    np.testing.assert_array_equal(found[1][:, :-2, :-2], images[:, 2:, 2:])
    np.testing.assert_array_equal(found[1][:, -2:, :-2], images[:, -2:-4:-1, 2:])
    np.testing.assert_array_equal(found[2][:, 2:, 2:], images[:, :-2, :-2])
    np.testing.assert_array_equal(found[2][:, 2:, :2], images[:, :-2, 2:0:-1])
    for view, mirrored in zip(found[:3], found[3:], strict=True):
        np.testing.assert_array_equal(view[:, :, ::-1], mirrored)
    np.testing.assert_array_equal(views(images, training=True), images)


def test_an_answer_is_the_mean_over_all_views() -> None:
    images = photos()
    chosen = resolve("fast", precision="float32", mirror=True, answer_shift=1, shift=0)
    network = build_network(chosen, ImageShape(12, 12, 3), 10)
    plain = build_network(resolve("fast", precision="float32", shift=0), ImageShape(12, 12, 3), 10)
    plain.set_weights(network.get_weights())

    answers = [plain(view) for view in tf.split(Views(mirror=True, shift=1)(images), 6)]
    np.testing.assert_allclose(network(images), np.mean(answers, axis=0), atol=1e-5, rtol=1e-4)
    assert network(images[:1], training=True).shape == (1, 10)
