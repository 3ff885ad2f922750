"""Augmentation: what it does to pixels."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.augmentation import (
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomDeformation,
    RandomFlip,
    RandomShift,
    augmentation,
)
from trainer.recipes import resolve

NOTHING = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0, "elastic": 0.0}


def deformation(**reach: float) -> RandomDeformation:
    return RandomDeformation(**{**NOTHING, **reach}, seed=3)


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    """64 images of 21 by 17 with one smooth blob each, near the centre."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:21, :17]
    centres = np.array([10, 8]) + random.uniform(-2, 2, (64, 2))
    squares = (y - centres[:, 0, None, None]) ** 2 + (x - centres[:, 1, None, None]) ** 2
    return np.exp(-squares / 8).astype(np.float32)[..., None]


def centre_of_mass(images: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: images.shape[1], : images.shape[2]]
    mass = images.sum((1, 2, 3))
    return np.stack([(images[..., 0] * axis).sum((1, 2)) / mass for axis in (y, x)], axis=1)


def test_without_reach_and_outside_of_training_nothing_changes(blobs: np.ndarray) -> None:
    assert np.allclose(deformation()(blobs, training=True), blobs, atol=1e-6)
    everything = deformation(rotation=30, scale=0.3, shear=0.3, shift=5, elastic=3)
    assert np.array_equal(everything(blobs, training=False), blobs)


def test_a_shift_moves_by_as_much_as_it_may(blobs: np.ndarray) -> None:
    moved = centre_of_mass(deformation(shift=2.0)(blobs, training=True).numpy()) - centre_of_mass(blobs)
    assert np.abs(moved).max() <= 2.1
    assert np.abs(moved).max(axis=0).min() > 1.5
    assert abs(moved.mean()) < 0.5


def test_a_rotation_keeps_the_distance_from_the_centre(blobs: np.ndarray) -> None:
    centre = np.array([10, 8])
    before = centre_of_mass(blobs) - centre
    after = centre_of_mass(deformation(rotation=90)(blobs, training=True).numpy()) - centre
    assert np.allclose(np.hypot(*before.T), np.hypot(*after.T), atol=0.1)
    turned = np.degrees(np.arctan2(*after.T) - np.arctan2(*before.T))
    turned = (turned + 180) % 360 - 180
    assert np.abs(turned).max() < 93
    assert np.abs(turned).max() > 70


def test_a_scale_changes_the_size(blobs: np.ndarray) -> None:
    ratio = deformation(scale=0.2)(blobs, training=True).numpy().sum((1, 2, 3)) / blobs.sum((1, 2, 3))
    assert 1.2**-2 - 0.02 < ratio.min() < 0.9
    assert 1.1 < ratio.max() < 0.8**-2 + 0.02


def test_a_bend_is_smooth_and_differs_within_an_image() -> None:
    stripes = np.tile((np.arange(28) % 4 < 2).astype(np.float32)[None, None, :, None], (8, 28, 1, 1))
    bent = deformation(elastic=1.5)(stripes, training=True).numpy()
    rows = np.abs(np.diff(bent[..., 0], axis=1))
    assert rows.max() > 0.1, "the stripes stayed straight"
    assert rows.mean() < 0.2, "neighbouring rows have little to do with each other"


def test_every_image_and_every_call_is_deformed_differently_and_by_seed(blobs: np.ndarray) -> None:
    same = np.repeat(blobs[:1], 8, axis=0)
    layer = deformation(rotation=20, shift=2)
    first, second = layer(same, training=True).numpy(), layer(same, training=True).numpy()
    assert len({image.tobytes() for image in [*first, *second]}) == 16
    assert np.array_equal(deformation(rotation=20, shift=2)(same, training=True), first)


@pytest.mark.slow
def test_it_is_part_of_a_graph_with_an_unknown_batch_size(blobs: np.ndarray) -> None:
    images = keras.Input((21, 17, 1))
    network = keras.Model(images, deformation(shift=1, elastic=1)(images))
    compiled = tf.function(lambda x: network(x, training=True))
    assert compiled(blobs[:5]).shape == (5, 21, 17, 1)
    assert compiled(blobs[:6]).shape == (6, 21, 17, 1)


def test_shift_moves_whole_images_within_its_reach() -> None:
    images = np.zeros((64, 9, 7, 1), np.float32)
    images[:, 4, 3] = 1.0
    layer = RandomShift(2, "zeros", seed=1)

    moved = layer(tf.constant(images), training=True).numpy()

    assert moved.shape == images.shape
    np.testing.assert_array_equal(moved.sum(axis=(1, 2, 3)), np.ones(64))
    places = Counter(zip(*np.nonzero(moved)[1:3], strict=True))
    assert {row for row, _ in places} == {2, 3, 4, 5, 6}
    assert {column for _, column in places} == {1, 2, 3, 4, 5}
    np.testing.assert_array_equal(layer(tf.constant(images), training=False), images)


def test_what_moves_out_is_lost_and_zeros_move_in() -> None:
    ones = tf.ones((64, 5, 5, 1))

    moved = RandomShift(1, "zeros", seed=0)(ones, training=True).numpy()

    assert {int(total) for total in moved.sum(axis=(1, 2, 3))} == {16, 20, 25}


def test_or_the_mirrored_image_moves_in() -> None:
    images = places()
    moved = RandomShift(2, "reflect", seed=0)(tf.constant(images), training=True).numpy()
    whole = np.pad(images[0], ((2, 2), (2, 2), (0, 0)), mode="reflect")
    parts = {whole[y : y + 9, x : x + 7].tobytes() for y in range(5) for x in range(5)}
    assert {image.tobytes() for image in moved} <= parts
    assert len({image.tobytes() for image in moved}) > 12


def places() -> np.ndarray:
    """64 images of 9 x 7 whose values say where they stand: row + 100 columns."""
    rows, columns = np.mgrid[:9, :7]
    one = (rows + 100 * columns).astype(np.float32)[..., None]
    return np.repeat(one[None], 64, axis=0)


def test_a_crop_comes_from_anywhere_and_from_the_middle_outside_of_training() -> None:
    layer = RandomCrop(5, seed=0)
    cropped = layer(tf.constant(places()), training=True).numpy()

    assert cropped.shape == (64, 5, 5, 1)
    corners = cropped[:, 0, 0, 0]
    assert {int(corner) % 100 for corner in corners} == {0, 1, 2, 3, 4}
    assert {int(corner) // 100 for corner in corners} == {0, 1, 2}
    np.testing.assert_array_equal(cropped - corners[:, None, None, None], places()[:, :5, :5])
    np.testing.assert_array_equal(layer(tf.constant(places())), places()[:, 2:7, 1:6])


def test_a_flip_mirrors_about_half() -> None:
    flipped = RandomFlip(seed=0)(tf.constant(places()), training=True).numpy()

    mirrored = [bool((image == places()[0, :, ::-1]).all()) for image in flipped]
    same = [bool((image == places()[0]).all()) for image in flipped]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 16 < sum(mirrored) < 48


def test_brightness_adds_and_contrast_multiplies_around_the_mean(blobs: np.ndarray) -> None:
    added = RandomBrightness(0.25, seed=0)(blobs, training=True).numpy() - blobs
    assert np.ptp(added, axis=(1, 2, 3)).max() < 1e-6
    assert 0.2 < np.abs(added).max() <= 0.25
    assert added.min() < -0.1 < 0.1 < added.max()

    stretched = RandomContrast(0.8, seed=0)(blobs, training=True).numpy()
    np.testing.assert_allclose(stretched.mean((1, 2)), blobs.mean((1, 2)), atol=1e-5)
    factors = stretched.std((1, 2, 3)) / blobs.std((1, 2, 3))
    assert 0.2 <= factors.min() < 0.4
    assert 1.6 < factors.max() <= 1.8


def test_only_a_crop_acts_outside_of_training(blobs: np.ndarray) -> None:
    layers = augmentation(resolve("cifar-tutorial", crop=15))
    assert [layer.name for layer in layers] == ["crop", "flip", "brightness", "contrast"]
    x = blobs
    for layer in layers:
        x = layer(x)
    np.testing.assert_array_equal(x, blobs[:, 3:18, 1:16])
