"""Requests that a server sends to a new version of the model before anybody else may.

The first request to a signature costs many times what a later one does. TF Serving, and `mnist serve`,
replay the PredictionLogs in `assets.extra/tf_serving_warmup_requests`; a version that fails at one of them
is not served.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from trainer import features
from trainer.export_outputs import ClassificationOutput, ExportedAs, PredictOutput
from trainer.features import ImageInput

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
BATCHES = (1, 32)  # images: one person's request, and what a server gathers under load


def write(model_dir: str, images: ImageInput, exports: Mapping[str, ExportedAs] | None = None) -> None:
    """Write a TFRecord of PredictionLog: a request for each signature and size of batch.

    Args:
        model_dir: folder of the SavedModel.
        images: what the model reads.
        exports: signatures out of the model function's `export_outputs`, by name.
    """
    path = f"{model_dir}/{WARMUP_FILE}"
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.TFRecordWriter(path) as writer:
        for count in BATCHES:
            for log in _logs(count, images, exports or {}):
                writer.write(log.SerializeToString())


def _logs(
    count: int, images: ImageInput, exports: Mapping[str, ExportedAs]
) -> Iterator[prediction_log_pb2.PredictionLog]:
    inputs = noise(count, images)
    _, examples = inputs[features.SIGNATURE_EXAMPLES]
    for signature, exported in exports.items():
        if exported.method == PredictOutput.method:
            inputs[signature] = (exported.input_name, examples)
    for signature, (name, tensor) in inputs.items():
        log = prediction_log_pb2.PredictionLog()
        log.predict_log.request.model_spec.signature_name = signature
        log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(tensor))
        yield log
    for signature, exported in exports.items():
        if exported.method == PredictOutput.method:
            continue
        log = prediction_log_pb2.PredictionLog()
        of_kind = log.classify_log if exported.method == ClassificationOutput.method else log.regress_log
        of_kind.request.model_spec.signature_name = signature
        for example in examples:
            of_kind.request.input.example_list.examples.add().MergeFromString(example)
        yield log


def noise(count: int, images: ImageInput) -> dict[str, tuple[str, np.ndarray]]:
    """By signature: its input's name, and images of noise; no kernel's time depends on what they show."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, *images.shape), np.uint8)
    files = [tf.io.encode_png(image).numpy() for image in pixels]
    stored = files if images.encoded else [image.tobytes() for image in pixels]
    # Clients send pictures of any size: every second one takes that way through the graph.
    sent = [
        tf.io.encode_png(image.repeat(2, 0).repeat(2, 1)).numpy() if at % 2 == 0 else files[at]
        for at, image in enumerate(pixels)
    ]
    grey = images.shape.channels == 1
    return {
        features.SIGNATURE_IMAGE_BYTES: (features.IMAGE_BYTES, np.array(sent, object)),
        features.SIGNATURE_DECODE: (features.IMAGE_BYTES, np.array(sent, object)),
        features.SIGNATURE_PIXELS: (features.IMAGE, pixels[..., 0] if grey else pixels),
        features.SIGNATURE_FLOATS: (features.IMAGE, pixels.astype(np.float32) / 255),
        features.SIGNATURE_EXAMPLES: (features.EXAMPLES, np.array(list(map(_example, stored)), object)),
    }


def _example(image: bytes) -> bytes:
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))
    example = tf.train.Example(features=tf.train.Features(feature={features.IMAGE: value}))
    return bytes(example.SerializeToString())
