"""Requests that a server sends to a new version of the model before anybody else may.

The first request to a signature costs many times what a later one does. TF Serving, and `mnist serve`,
replay the PredictionLogs in `assets.extra/tf_serving_warmup_requests`; a version that fails at one of them
is not served.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

from trainer import features

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
BATCHES = (1, 32)  # images: one person's request, and what a server gathers under load


def write(model_dir: str, shape: features.ImageShape) -> None:
    """Write a TFRecord of PredictionLog: a Predict request for each signature and size of batch.

    Classify and Regress have no part in it: TF Serving takes them only by signatures made for them.

    Args:
        model_dir: folder of the SavedModel.
        shape: of the images that the model takes.
    """
    path = f"{model_dir}/{WARMUP_FILE}"
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.TFRecordWriter(path) as writer:
        for count in BATCHES:
            for signature, (name, tensor) in _inputs(count, shape).items():
                request = predict_pb2.PredictRequest(
                    model_spec=model_pb2.ModelSpec(signature_name=signature)
                )
                request.inputs[name].CopyFrom(tf.make_tensor_proto(tensor))
                log = prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                )
                writer.write(log.SerializeToString())


def _inputs(count: int, shape: features.ImageShape) -> dict[str, tuple[str, np.ndarray]]:
    """By signature: its input's name, and images of noise; no kernel's time depends on what they show."""
    images = np.random.default_rng(0).integers(0, 256, (count, *shape[:2]), np.uint8)
    files = [tf.io.encode_png(image[..., None]).numpy() for image in images]
    examples = [_example(image) for image in images]
    return {
        features.SIGNATURE_IMAGE_BYTES: (features.IMAGE_BYTES, np.array(files, object)),
        features.SIGNATURE_PIXELS: (features.IMAGE, images),
        features.SIGNATURE_EXAMPLES: (features.EXAMPLES, np.array(examples, object)),
    }


def _example(image: np.ndarray) -> bytes:
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()]))
    example = tf.train.Example(features=tf.train.Features(feature={features.IMAGE: value}))
    return bytes(example.SerializeToString())
