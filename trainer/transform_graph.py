"""Transform's graph for the server: entered with an example's image, or past the decoding with its pixels.

The transform_features_layer of tensorflow-transform has the first entry alone, and saving it costs more
than the rest of the model: it is a layer of tf_keras, which traces itself again.
"""

from __future__ import annotations

import tensorflow as tf
import tensorflow_transform as tft

from trainer import features


class TransformGraph:
    """The graph that the training examples went through, and no other code."""

    def __init__(self, transform: tft.TFTransformOutput) -> None:
        """Load it.

        Args:
            transform: Transform's output. What preprocessing_fn makes of the image may depend on nothing
                but the image.
        """
        loaded = tf.saved_model.load(transform.transform_savedmodel_dir).transform_fn
        graph_def = loaded.graph.as_graph_def()
        # https://www.tensorflow.org/guide/migrate: how a part of a graph becomes a function.
        whole = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph_def, name=""), [])
        (specs,), _ = loaded.structured_input_signature
        order = tf.nest.flatten({name: name for name in specs})
        example = whole.graph.get_tensor_by_name(loaded.graph.inputs[order.index(features.IMAGE)].name)
        order = tf.nest.flatten({name: name for name in loaded.structured_outputs})
        output = whole.graph.get_tensor_by_name(loaded.graph.outputs[order.index(features.IMAGE)].name)
        # A function's outputs wait for all of its checks, which pixels do not come by.
        unchecked = output.op.inputs[0] if output.op.type == "Identity" else output
        self._from_examples = whole.prune([example], output)
        self._from_pixels = whole.prune(
            [whole.graph.get_tensor_by_name(f"{features.DECODED}:0")], unchecked
        )
        self._shape = loaded.structured_outputs[features.IMAGE].shape

    def from_examples(self, images: tf.Tensor) -> tf.Tensor:
        """What examples hold, string [N], to what the network reads, [N, height, width, channels]."""
        return tf.ensure_shape(self._from_examples(tf.expand_dims(images, 1)), self._shape)

    def from_pixels(self, pixels: tf.Tensor) -> tf.Tensor:
        """What decoding makes of them, uint8 [N, height, width, channels], to what the network reads."""
        return tf.ensure_shape(self._from_pixels(pixels), self._shape)
