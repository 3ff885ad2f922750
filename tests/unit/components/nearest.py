"""A classifier that is made in no time and makes mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer import features


class Nearest(tf.Module):
    """Classifies 28 x 28 images by the nearest mean image.

    Args:
        images: uint8 [N, 28, 28].
        labels: [N], with at least one of each class up to the highest.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        super().__init__()
        flat = images.reshape(len(images), -1) / 255
        means = [flat[labels == c].mean(axis=0) for c in range(labels.max() + 1)]
        self.means = tf.constant(means, tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.uint8, name="image")])
    def pixels(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature for arrays."""
        flat = tf.reshape(tf.cast(image, tf.float32) / 255, [-1, 784])
        distances = tf.reduce_sum((flat[:, None] - self.means) ** 2, axis=2)
        return {features.PROBABILITIES: tf.nn.softmax(-distances / 5)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """The signature for serialized Examples."""
        parsed = tf.io.parse_example(examples, {features.IMAGE: tf.io.FixedLenFeature([], tf.string)})
        image = tf.io.decode_raw(parsed[features.IMAGE], tf.uint8)
        return dict(self.pixels(tf.reshape(image, [-1, 28, 28])))

    def save(self, folder: Path) -> None:
        """Write a SavedModel with both signatures."""
        tf.saved_model.save(
            self,
            str(folder),
            {
                features.SIGNATURE_PIXELS: self.pixels,
                features.SIGNATURE_EXAMPLES: self.examples,
            },
        )
