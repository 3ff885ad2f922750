"""Augmentation: random changes that leave the label alone, inside the network, in training alone."""

from __future__ import annotations

import keras
import tensorflow as tf


class RandomShift(keras.layers.Layer):
    """Moves each image by a whole number of pixels in each direction; what moves in is zero."""

    def __init__(self, pixels: int, seed: int, **kwargs: object) -> None:
        """Make the layer.

        Args:
            pixels: the largest shift in each direction, in pixels.
            seed: makes the sequence of shifts reproducible.
            **kwargs: keras.layers.Layer's own.
        """
        super().__init__(**kwargs)
        self.pixels = pixels
        self._seeds = keras.random.SeedGenerator(seed)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Shift [N, H, W, C] images in training; return them untouched otherwise."""
        if not training:
            return images
        _, height, width, _ = images.shape
        count = tf.shape(images)[0]
        reach = self.pixels
        offsets = keras.random.randint((count, 2), 0, 2 * reach + 1, dtype="int32", seed=self._seeds)
        padded = tf.pad(images, [[0, 0], [reach, reach], [reach, reach], [0, 0]])
        rows = offsets[:, :1] + tf.range(height)
        columns = offsets[:, 1:] + tf.range(width)
        padded = tf.gather(padded, rows, axis=1, batch_dims=1)
        return tf.gather(padded, columns, axis=2, batch_dims=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shapes do not change."""
        return input_shape
