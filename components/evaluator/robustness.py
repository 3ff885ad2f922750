"""Test images changed as real ones differ, after the idea of MNIST-C (N. Mu and J. Gilmer 2019).

Every change is a pure function of the images: the same images in, the same images out.
Lengths are for images of 28 pixels and grow with the image; ink is light on a dark ground, as in MNIST.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # [N, H, W], photos with colours [N, H, W, C]

_REFERENCE = 28  # pixels
_NEIGHBOURS = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))


def shifted(images: Images, pixels: float) -> Images:
    """Moved up, down, left or right in turn."""
    _, height, width = images.shape
    distance = max(1, round(pixels * min(height, width) / _REFERENCE))
    moved = np.zeros_like(images)
    moved[0::4, distance:] = images[0::4, :-distance]
    moved[1::4, :-distance] = images[1::4, distance:]
    moved[2::4, :, distance:] = images[2::4, :, :-distance]
    moved[3::4, :, :-distance] = images[3::4, :, distance:]
    return moved


def rotated(images: Images, degrees: float) -> Images:
    """Turned about the middle, one to the left, the next to the right."""
    count, height, width = images.shape
    angles = np.deg2rad(degrees) * np.where(np.arange(count) % 2, 1.0, -1.0)
    cos, sin = np.cos(angles), np.sin(angles)
    x, y = (width - 1) / 2, (height - 1) / 2
    rows = [cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y, 0 * cos, 0 * cos]
    turned = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images[..., None], tf.float32),
        transforms=tf.constant(np.stack(rows, axis=1), tf.float32),
        output_shape=tf.constant([height, width]),
        fill_value=tf.constant(0.0),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return _bytes(turned.numpy()[..., 0])


def blurred(images: Images, sigma: float) -> Images:
    """Through a Gaussian filter."""
    scaled = sigma * min(images.shape[1:3]) / _REFERENCE
    radius = max(1, round(3 * scaled))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / scaled) ** 2)
    soft = images.astype(np.float32)
    for axis in (1, 2):
        padding = [(0, 0)] * images.ndim
        padding[axis] = (radius, radius)
        padded = np.pad(soft, padding)
        size = images.shape[axis]
        soft = sum(
            (
                np.float32(weight / weights.sum()) * padded.take(range(start, start + size), axis)
                for start, weight in enumerate(weights)
            ),
            np.zeros_like(soft),
        )
    return _bytes(soft)


def noisy(images: Images, deviation: float) -> Images:
    """With Gaussian noise in every pixel; the deviation is a share of full brightness."""
    noise = np.random.default_rng(0).standard_normal(images.shape, np.float32)
    return _bytes(images + np.float32(255 * deviation) * noise)


def thinner(images: Images, share: float) -> Images:
    """Each pixel a share of the way to the darkest of its neighbours and itself."""
    return _towards(images, np.minimum, share)


def thicker(images: Images, share: float) -> Images:
    """Each pixel a share of the way to the lightest of its neighbours and itself; above 1, once more."""
    once = _towards(images, np.maximum, min(share, 1.0))
    return _towards(once, np.maximum, share - 1.0) if share > 1.0 else once


# Three severities each, mild to strong: what is left can still be read by a person.
CORRUPTIONS: Mapping[str, tuple[Callable[[Images, float], Images], tuple[float, float, float]]] = {
    "shifted": (shifted, (1.0, 2.0, 4.0)),
    "rotated": (rotated, (10.0, 20.0, 30.0)),
    "blurred": (blurred, (0.5, 0.8, 1.1)),
    "noisy": (noisy, (0.05, 0.1, 0.2)),
    "thinner": (thinner, (0.4, 0.7, 1.0)),
    "thicker": (thicker, (0.5, 1.0, 2.0)),
}


def brighter(images: Images, share: float) -> Images:
    """Each pixel a share of the way to white, or with a negative share to black."""
    goal = np.float32(255 if share > 0 else 0)
    return _bytes(images + np.float32(abs(share)) * (goal - images.astype(np.float32)))


def darker(images: Images, share: float) -> Images:
    """Each pixel a share of the way to black."""
    return brighter(images, -share)


def flatter(images: Images, share: float) -> Images:
    """Each pixel a share of the way to the image's mean: less contrast."""
    soft = images.astype(np.float32)
    mean = soft.mean(axis=tuple(range(1, soft.ndim)), keepdims=True)
    return _bytes(soft + np.float32(share) * (mean - soft))


def compressed(images: Images, quality: float) -> Images:
    """Through JPEG of a quality."""
    channels = images.shape[3] if images.ndim == 4 else 1
    whole = images.reshape(*images.shape[:3], channels)
    files = [tf.io.encode_jpeg(image, quality=int(quality), format="rgb" if channels == 3 else "grayscale")
             for image in whole]  # fmt: skip
    back = [tf.io.decode_jpeg(file, channels=channels).numpy() for file in files]
    return np.stack(back).reshape(images.shape)


def occluded(images: Images, share: float) -> Images:
    """A grey square of a share of the side, in a corner or the middle in turn."""
    count, height, width = images.shape[:3]
    side = max(1, round(share * min(height, width)))
    hidden = images.copy()
    places = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5)]
    for number in range(count):
        y, x = places[number % len(places)]
        top, left = round(y * (height - side)), round(x * (width - side))
        hidden[number, top : top + side, left : left + side] = 127
    return hidden


# For photos: light, camera and transport differ, and something stands in the way.
PHOTO_CORRUPTIONS: Mapping[str, tuple[Callable[[Images, float], Images], tuple[float, float, float]]] = {
    "brighter": (brighter, (0.2, 0.4, 0.6)),
    "darker": (darker, (0.3, 0.5, 0.7)),
    "flatter": (flatter, (0.3, 0.5, 0.7)),
    "blurred": (blurred, (0.4, 0.7, 1.0)),
    "noisy": (noisy, (0.03, 0.06, 0.12)),
    "compressed": (compressed, (50.0, 25.0, 10.0)),
    "occluded": (occluded, (0.2, 0.35, 0.5)),
}


def corrupted(images: Images, photos: bool = False) -> Iterator[tuple[str, int, Images]]:
    """Every corruption at every severity, from 1: its name, the severity, the changed images."""
    for name, (change, strengths) in (PHOTO_CORRUPTIONS if photos else CORRUPTIONS).items():
        for severity, strength in enumerate(strengths, 1):
            yield name, severity, change(images, strength)


def _towards(images: Images, extreme: np.ufunc, share: float) -> Images:
    _, height, width = images.shape
    reach = max(1, round(min(height, width) / _REFERENCE))
    for _ in range(reach):
        padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
        shifts = [padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in _NEIGHBOURS]
        goal = extreme.reduce(shifts)
        images = _bytes(images + np.float32(share) * (goal.astype(np.float32) - images))
    return images


def _bytes(values: NDArray[np.float32]) -> Images:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
