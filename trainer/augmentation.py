"""Augmentation: random changes that leave the label alone, inside the network, in training alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.recipes import Params

_ELASTIC_GRID = 6  # points in each direction


def augmentation(params: Params) -> Sequence[keras.layers.Layer]:
    """The layers that change images in training, in their order; float32 [N, H, W, C] to the same.

    Only `crop` acts outside of training too: it takes the middle.
    """
    layers: list[keras.layers.Layer] = []
    if params.rotation or params.scale or params.shear or params.elastic:
        layers.append(
            RandomDeformation(
                params.rotation,
                params.scale,
                params.shear,
                params.shift,
                params.elastic,
                seed=params.seed,
                name="deformation",
            )
        )
    elif params.shift:
        layers.append(RandomShift(params.shift, params.shift_fill, seed=params.seed, name="shift"))
    if params.crop:
        layers.append(RandomCrop(params.crop, seed=params.seed, name="crop"))
    if params.flip:
        layers.append(RandomFlip(seed=params.seed, name="flip"))
    if params.brightness:
        layers.append(RandomBrightness(params.brightness, seed=params.seed, name="brightness"))
    if params.contrast:
        layers.append(RandomContrast(params.contrast, seed=params.seed, name="contrast"))
    return layers


class _Random(keras.layers.Layer):
    """A layer that draws random numbers of its own in training."""

    def __init__(self, seed: int, **kwargs: object) -> None:
        """Make the layer; the seed makes what it draws reproducible."""
        super().__init__(**kwargs)
        self._seeds = keras.random.SeedGenerator(seed)

    def _draw(self, count: tf.Tensor, least: float, largest: float) -> tf.Tensor:
        """float32 [count, 1, 1, 1], uniform."""
        return keras.random.uniform((count, 1, 1, 1), least, largest, seed=self._seeds)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shapes do not change."""
        return input_shape


class RandomCrop(_Random):
    """Takes a square from anywhere in each image; from the middle outside of training."""

    def __init__(self, side: int, seed: int, **kwargs: object) -> None:
        """Make the layer, for squares of so many pixels."""
        super().__init__(seed, **kwargs)
        self.side = side

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[N, H, W, C] to [N, side, side, C]."""
        _, height, width, _ = images.shape
        spare = (height - self.side, width - self.side)
        if not training:
            # As tf.image.resize_with_crop_or_pad: of an odd number of spare pixels one more is below.
            top, left = (pixels // 2 for pixels in spare)
            return images[:, top : top + self.side, left : left + self.side]
        count = tf.shape(images)[0]
        rows, columns = (
            keras.random.randint((count, 1), 0, pixels + 1, dtype="int32", seed=self._seeds)
            + tf.range(self.side)
            for pixels in spare
        )
        images = tf.gather(images, rows, axis=1, batch_dims=1)
        return tf.gather(images, columns, axis=2, batch_dims=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Height and width become the side."""
        return (input_shape[0], self.side, self.side, input_shape[3])


class RandomFlip(_Random):
    """Mirrors half of the images, left to right."""

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Mirror some of [N, H, W, C] images in training; return them untouched otherwise."""
        if not training:
            return images
        return tf.where(self._draw(tf.shape(images)[0], 0.0, 1.0) < 0.5, images[:, :, ::-1], images)


class RandomBrightness(_Random):
    """Adds the same to all values of an image, which may leave [0, 1]."""

    def __init__(self, most: float, seed: int, **kwargs: object) -> None:
        """Make the layer; `most` is added at most, or taken away."""
        super().__init__(seed, **kwargs)
        self.most = most

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Change [N, H, W, C] images in training; return them untouched otherwise."""
        return images + self._draw(tf.shape(images)[0], -self.most, self.most) if training else images


class RandomContrast(_Random):
    """Multiplies the distance of each channel's values from their mean."""

    def __init__(self, most: float, seed: int, **kwargs: object) -> None:
        """Make the layer; the factor is within 1 - most and 1 + most."""
        super().__init__(seed, **kwargs)
        self.most = most

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Change [N, H, W, C] images in training; return them untouched otherwise."""
        if not training:
            return images
        mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
        factor = self._draw(tf.shape(images)[0], 1 - self.most, 1 + self.most)
        return (images - mean) * factor + mean


class RandomShift(keras.layers.Layer):
    """Moves each image by a whole number of pixels in each direction."""

    def __init__(self, pixels: int, fill: str, seed: int, **kwargs: object) -> None:
        """Make the layer.

        Args:
            pixels: the largest shift in each direction, in pixels.
            fill: what moves in: `zeros`, or the image mirrored at its border, `reflect`.
            seed: makes the sequence of shifts reproducible.
            **kwargs: keras.layers.Layer's own.
        """
        super().__init__(**kwargs)
        self.pixels = pixels
        self._mode = "REFLECT" if fill == "reflect" else "CONSTANT"
        self._seeds = keras.random.SeedGenerator(seed)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Shift [N, H, W, C] images in training; return them untouched otherwise."""
        if not training:
            return images
        _, height, width, _ = images.shape
        count = tf.shape(images)[0]
        reach = self.pixels
        offsets = keras.random.randint((count, 2), 0, 2 * reach + 1, dtype="int32", seed=self._seeds)
        padded = tf.pad(images, [[0, 0], [reach, reach], [reach, reach], [0, 0]], self._mode)
        rows = offsets[:, :1] + tf.range(height)
        columns = offsets[:, 1:] + tf.range(width)
        padded = tf.gather(padded, rows, axis=1, batch_dims=1)
        return tf.gather(padded, columns, axis=2, batch_dims=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shapes do not change."""
        return input_shape


class RandomDeformation(keras.layers.Layer):
    """Turns, scales, slants, moves and bends each image, by bilinear sampling; outside of it is zero.

    The bend is the elastic deformation of Simard, Steinkraus and Platt, "Best Practices for Convolutional
    Neural Networks Applied to Visual Document Analysis" (2003), with a smooth field made from a coarse grid
    instead of a filtered fine one: the same kind of field for a hundredth of the work.
    """

    def __init__(
        self,
        rotation: float,
        scale: float,
        shear: float,
        shift: float,
        elastic: float,
        seed: int,
        **kwargs: object,
    ) -> None:
        """Make the layer; each argument but the last is the largest deviation, in both directions.

        Args:
            rotation: degrees.
            scale: share of the size, in each direction on its own.
            shear: horizontal pixels per vertical pixel.
            shift: pixels, in each direction.
            elastic: pixels by which a point of the coarse grid is displaced, in each direction.
            seed: makes the sequence of deformations reproducible.
            **kwargs: keras.layers.Layer's own.
        """
        super().__init__(**kwargs)
        self.rotation, self.scale, self.shear, self.shift, self.elastic = (
            rotation,
            scale,
            shear,
            shift,
            elastic,
        )
        self._seeds = keras.random.SeedGenerator(seed)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Deform [N, H, W, C] images in training; return them untouched otherwise."""
        if not training:
            return images
        _, height, width, _ = images.shape
        count = tf.shape(images)[0]

        def deviation(largest: float) -> tf.Tensor:
            return keras.random.uniform((count, 1, 1), -largest, largest, seed=self._seeds)

        # Where each pixel of the result comes from, in pixels from the centre.
        y = tf.range(height, dtype=tf.float32)[None, :, None] - (height - 1) / 2
        x = tf.range(width, dtype=tf.float32)[None, None, :] - (width - 1) / 2
        angle = deviation(math.radians(self.rotation))
        cosine, sine = tf.cos(angle), tf.sin(angle)
        slanted = x + deviation(self.shear) * y
        source_x = (cosine * slanted - sine * y) * (1 + deviation(self.scale)) + deviation(self.shift)
        source_y = (sine * slanted + cosine * y) * (1 + deviation(self.scale)) + deviation(self.shift)
        if self.elastic:
            grid = (count, _ELASTIC_GRID, _ELASTIC_GRID, 2)
            coarse = keras.random.uniform(grid, -self.elastic, self.elastic, seed=self._seeds)
            bend = tf.image.resize(coarse, (height, width), "bicubic")
            source_x, source_y = source_x + bend[..., 0], source_y + bend[..., 1]
        return _sample(images, source_y + (height - 1) / 2, source_x + (width - 1) / 2)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shapes do not change."""
        return input_shape


def _sample(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """[N, H, W, C] images at real positions [N, H, W], in pixels; zero outside."""
    _, height, width, channels = images.shape
    # A border of zeros, to which everything outside is drawn.
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    y = tf.clip_by_value(y + 1, 0.0, height + 0.999)
    x = tf.clip_by_value(x + 1, 0.0, width + 0.999)
    top, left = tf.floor(y), tf.floor(x)
    down, right = (y - top)[..., None], (x - left)[..., None]
    row = tf.range(tf.shape(images)[0])[:, None, None] * (height + 2) + tf.cast(top, tf.int32)
    corner = row * (width + 2) + tf.cast(left, tf.int32)
    pixels = tf.reshape(padded, [-1, channels])

    def at(offset: int) -> tf.Tensor:
        return tf.gather(pixels, corner + offset)

    upper = at(0) * (1 - right) + at(1) * right
    lower = at(width + 2) * (1 - right) + at(width + 3) * right
    return upper * (1 - down) + lower * down
