"""A LiteRT model (TFLite) of what was trained, for devices: model.tflite next to the SavedModel.

It reads float images: what decodes pictures, and strings of bytes, is not for a device.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import tensorflow as tf

from trainer import features
from trainer.estimator import ModeKeys
from trainer.estimator_model import EstimatorModel
from trainer.features import ImageShape

FLOAT16, INT8 = "float16", "int8"
EXAMPLES = 200  # images by which the ranges of int8 are found


def write(directory: str, model: EstimatorModel, shape: ImageShape, kind: str, images: tf.Tensor) -> None:
    """Convert a model; one signature, `image` float32 [N, H, W, C] in [0, 1] to the predictions.

    Args:
        directory: of the SavedModel.
        model: with trained variables, in float32.
        shape: of the images.
        kind: float16: weights of half the size; int8: arithmetic in 8 bits where LiteRT has it, inputs and
            outputs float32 all the same.
        images: float32 [n, H, W, C], training images that stand for all.

    Raises:
        ValueError: where the network has an operation that LiteRT has not.
    """
    module = tf.Module()

    def predict(image: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = model.spec({features.IMAGE: image}, None, ModeKeys.PREDICT)
        wanted = (features.CLASSES, features.PROBABILITIES, features.LOGITS)
        return {name: spec.prediction_dict[name] for name in wanted if name in spec.prediction_dict}

    inputs = tf.TensorSpec([None, *shape], tf.float32, name=features.IMAGE)
    with model.graph_variables.found_again():
        traced = tf.function(predict, autograph=False).get_concrete_function(inputs)
    # What a function uses must be reached from the module.
    module.weights = list(traced.variables)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={features.SIGNATURE_IMAGE_BYTES: traced})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=[features.SIGNATURE_IMAGE_BYTES]
        )
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == FLOAT16:
            converter.target_spec.supported_types = [tf.float16]
        else:

            def representative() -> Iterator[dict[str, tf.Tensor]]:
                for at in range(len(images)):
                    yield {features.IMAGE: images[at : at + 1]}

            converter.representative_dataset = representative
        try:
            content = converter.convert()
        except Exception as error:  # its own class is not public
            message = " ".join(str(error).split())
            raise ValueError(
                f"push.lite={kind}: LiteRT cannot have this network: {message[:300]}"
            ) from error
    with tf.io.gfile.GFile(f"{directory}/{features.LITE_FILE}", "wb") as file:
        file.write(content)
