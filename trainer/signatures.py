"""The serving signatures: raw inputs through Transform's graph and the network, in one SavedModel.

Every input is checked in the graph, before the network sees it: a convolution that is fed the wrong rank
can abort the whole process (TensorFlow issue 111453), and a server does not check shapes for it.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf
import tensorflow_transform as tft

from trainer import features
from trainer.estimator import ModeKeys, ModelFn
from trainer.recipes import Params


class ServingModule(tf.Module):
    """What the SavedModel consists of: Transform's graph, the trained variables, three functions."""

    def __init__(
        self, network: keras.Model, params: Params, transform: tft.TFTransformOutput, model_fn: ModelFn
    ) -> None:
        """Put the parts together.

        Args:
            network: the trained network, in float32.
            params: the recipe.
            transform: Transform's output.
            model_fn: what it predicts in PREDICT is what the signatures answer.
        """
        super().__init__(name="serving")
        self._model_fn = model_fn
        self._network = network
        self._params = params
        # As attributes: a SavedModel keeps only what it can reach from its root.
        self._weights = [weight.value for weight in network.variables]
        self._transform = transform.transform_features_layer()
        self._shape = features.ImageShape(*network.input_shape[1:])

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Trace the three functions; their inputs and outputs are those of trainer.features."""
        files = tf.TensorSpec([None], tf.string, name=features.IMAGE_BYTES)
        pixels = tf.TensorSpec([None, *self._shape[:2]], tf.uint8, name=features.IMAGE)
        examples = tf.TensorSpec([None], tf.string, name=features.EXAMPLES)
        return {
            name: tf.function(function, autograph=False).get_concrete_function(spec)
            for name, function, spec in (
                (features.SIGNATURE_IMAGE_BYTES, self._from_files, files),
                (features.SIGNATURE_PIXELS, self._from_pixels, pixels),
                (features.SIGNATURE_EXAMPLES, self._from_examples, examples),
            )
        }

    def _from_files(self, image_bytes: tf.Tensor) -> Mapping[str, tf.Tensor]:
        image_bytes = tf.ensure_shape(image_bytes, [None])
        pixels = tf.map_fn(
            self._decode,
            image_bytes,
            fn_output_signature=tf.TensorSpec(self._shape[:2], tf.uint8),
        )
        return self._predict(_to_raw(pixels))

    def _from_pixels(self, image: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return self._predict(_to_raw(tf.ensure_shape(image, [None, *self._shape[:2]])))

    def _from_examples(self, examples: tf.Tensor) -> Mapping[str, tf.Tensor]:
        # Without the label: an example may have one, but nobody who asks for it needs to know it.
        spec = {features.IMAGE: tf.io.FixedLenFeature([], tf.string)}
        return self._predict(tf.io.parse_example(tf.ensure_shape(examples, [None]), spec)[features.IMAGE])

    def _decode(self, image_bytes: tf.Tensor) -> tf.Tensor:
        """One file to uint8 [height, width]; colours become grey."""
        # In spite of its name decode_png reads JPEG too, and unlike decode_image never an animation.
        decoded = tf.io.decode_png(image_bytes, channels=1)
        shape = tf.shape(decoded)
        check = tf.debugging.Assert(
            tf.reduce_all(tf.equal(shape[:2], self._shape[:2])),
            [f"an image must be {self._shape} (height x width), but one is", shape[0], "x", shape[1]],
        )
        with tf.control_dependencies([check]):
            return tf.reshape(decoded, self._shape[:2])

    def _predict(self, raw: tf.Tensor) -> Mapping[str, tf.Tensor]:
        # oneDNN's convolutions give an empty batch a wrong shape: it gets one blank image.
        count = tf.shape(raw)[0]
        blanks = tf.fill(
            [tf.cast(tf.equal(count, 0), tf.int32)], bytes(self._shape.height * self._shape.width)
        )
        inputs = self._transform({features.IMAGE: tf.expand_dims(tf.concat([raw, blanks], 0), 1)})
        predictions = self._model_fn(
            inputs, None, ModeKeys.PREDICT, self._params, self._network
        ).predictions
        assert predictions is not None  # EstimatorSpec sees to it
        return {name: value[:count] for name, value in predictions.items()}


def export(
    directory: str,
    network: keras.Model,
    params: Params,
    transform: tft.TFTransformOutput,
    model_fn: ModelFn,
) -> None:
    """Write the SavedModel with the three signatures.

    Args:
        directory: where to; made if it is not there.
        network: the trained network, in float32.
        params: the recipe.
        transform: Transform's output.
        model_fn: the model function.
    """
    module = ServingModule(network, params, transform, model_fn)
    tf.saved_model.save(module, directory, signatures=module.signatures())


def _to_raw(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 [N, H, W] to string [N]: the raw bytes that Transform's graph reads."""
    # TensorFlow has no inverse of decode_raw: look the bytes up and join them.
    table = tf.constant([bytes([value]) for value in range(256)])
    flat = tf.reshape(pixels, [tf.shape(pixels)[0], pixels.shape[1] * pixels.shape[2]])
    return tf.strings.reduce_join(tf.gather(table, tf.cast(flat, tf.int32)), axis=1)
