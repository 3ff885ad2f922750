"""What clients send, to what the network reads: through Transform's graph, as the examples went."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf
import tensorflow_transform as tft

from trainer import features, pictures
from trainer.features import ImageInput
from trainer.transform_graph import TransformGraph


class ServingInputs(tf.Module):
    """The inputs of the signatures; every one is checked before the network sees it.

    All but `decoded` give what the network reads, float32 [N, height, width, channels].
    """

    def __init__(self, images: ImageInput, transform: tft.TFTransformOutput) -> None:
        """Prepare for a model that reads such images, by Transform's output."""
        super().__init__(name="serving_inputs")
        self.images = images
        self._transform = TransformGraph(transform)
        shape = images.shape
        # Traced and saved once for the signatures that read files: it is most of the model's graph.
        self._pixels = tf.function(
            lambda files: pictures.decode_files(files, shape, images.fit), autograph=False
        ).get_concrete_function(tf.TensorSpec([None], tf.string))

    def specs(self) -> Mapping[str, tf.TensorSpec]:
        """The inputs of all signatures but those of examples, by the name of the signature."""
        height, width, channels = self.images.shape
        # Grey pixels come without channels, as MNIST's always have.
        pixels = [None, height, width] if channels == 1 else [None, height, width, channels]
        floats = [None, height, width, channels]
        return {
            features.SIGNATURE_IMAGE_BYTES: tf.TensorSpec([None], tf.string, name=features.IMAGE_BYTES),
            features.SIGNATURE_DECODE: tf.TensorSpec([None], tf.string, name=features.IMAGE_BYTES),
            features.SIGNATURE_PIXELS: tf.TensorSpec(pixels, tf.uint8, name=features.IMAGE),
            features.SIGNATURE_FLOATS: tf.TensorSpec(floats, tf.float32, name=features.IMAGE),
        }

    def from_examples(self, images: tf.Tensor) -> tf.Tensor:
        """Images as examples hold them, string [N]."""
        return self._transform.from_examples(images)

    def from_files(self, files: tf.Tensor) -> tf.Tensor:
        """Picture files, string [N]."""
        files = tf.ensure_shape(files, [None])
        if self.images.encoded:
            return self._transform.from_examples(files)
        return self._transform.from_pixels(self._pixels(files))

    def decoded(self, files: tf.Tensor) -> tf.Tensor:
        """Picture files, string [N], to what the network gets of them, as `pixels` takes it."""
        files = tf.ensure_shape(files, [None])
        return tf.reshape(self._pixels(files), [-1, *self.specs()[features.SIGNATURE_PIXELS].shape[1:]])

    def from_pixels(self, pixels: tf.Tensor) -> tf.Tensor:
        """uint8 [N, H, W] or [N, H, W, C], of the model's size."""
        pixels = tf.ensure_shape(pixels, self.specs()[features.SIGNATURE_PIXELS].shape)
        return self._transform.from_pixels(tf.reshape(pixels, [-1, *self.images.shape]))

    def from_floats(self, floats: tf.Tensor) -> tf.Tensor:
        """float32 [N, H, W, C] in [0, 1], to the nearest of 256 levels: a byte is that byte again."""
        floats = tf.ensure_shape(floats, [None, *self.images.shape])
        inside = tf.reduce_all((floats >= 0) & (floats <= 1))  # NaN is not
        check = tf.debugging.Assert(
            inside,
            ["values must be 0 … 1 (bytes divided by 255), but they are", tf.reduce_min(floats), "to",
             tf.reduce_max(floats)],
        )  # fmt: skip
        with tf.control_dependencies([check] if check is not None else []):
            return self._transform.from_pixels(tf.cast(tf.round(floats * 255), tf.uint8))
