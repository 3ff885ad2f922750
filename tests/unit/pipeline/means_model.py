"""A SavedModel of the pipeline's kind that is made in no time: the nearest class mean of real digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer import features, pictures
from trainer.features import ImageShape


class Means(tf.Module):
    """Answers with the class whose mean image is nearest."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        super().__init__()
        flat = images.reshape(len(images), -1).astype(np.float32) / 255
        means = [flat[labels == label].mean(axis=0) for label in range(labels.max() + 1)]
        self.means = tf.Variable(np.stack(means))
        self.pixels = tf.function(self._pixels).get_concrete_function(
            tf.TensorSpec([None, *images.shape[1:]], tf.uint8, name=features.IMAGE)
        )
        self._shape = ImageShape(*images.shape[1:])
        files = tf.TensorSpec([None], tf.string, name=features.IMAGE_BYTES)
        self.decode = tf.function(self._decode, autograph=False).get_concrete_function(files)
        self.files = tf.function(self._files, autograph=False).get_concrete_function(files)

    def _decode(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = pictures.decode_files(image_bytes, self._shape, features.FIT_CENTER)[..., 0]
        names = tf.constant([f"mean {label}" for label in range(self.means.shape[0])])
        return {features.IMAGE: images, features.NAMES: tf.tile(names[None], [tf.shape(images)[0], 1])}

    def _files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._pixels(self._decode(image_bytes)[features.IMAGE])

    def _pixels(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        flat = tf.reshape(tf.cast(image, tf.float32) / 255, [-1, self.means.shape[1]])
        distances = tf.reduce_sum((flat[:, None] - self.means) ** 2, axis=2)
        return {
            features.CLASSES: tf.argmin(distances, axis=1),
            features.PROBABILITIES: tf.nn.softmax(-distances / 5),
        }


def save(folder: Path, images: np.ndarray, labels: np.ndarray) -> Means:
    """Write the model and give it back."""
    model = Means(images, labels)
    signatures = {
        features.SIGNATURE_PIXELS: model.pixels,
        features.SIGNATURE_DECODE: model.decode,
        features.SIGNATURE_IMAGE_BYTES: model.files,
    }
    tf.saved_model.save(model, str(folder), signatures)
    return model
