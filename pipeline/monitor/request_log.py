"""Reads back what `request_log` writes: the images that were asked about, and what the model said."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tensorflow_serving.apis import prediction_log_pb2

from serving.protocol import tensors
from serving.protocol.errors import ServingError
from trainer import features

SUFFIX = ".tfrecord"


@dataclass(frozen=True)
class Request:
    """One logged request, and its answer.

    Attributes:
        model: name of the model.
        version: that answered.
        images: uint8 [n, H, W]; None where they are not to be had.
        classes: int64 [n]; None where the client did not ask for them.
        confidence: probability of the class, float32 [n]; None likewise.
    """

    model: str
    version: int
    images: NDArray[np.uint8] | None
    classes: NDArray[np.int64] | None
    confidence: NDArray[np.float32] | None


@dataclass
class Damage:
    """What could not be read: files that break off, and records that are no PredictionLog."""

    files: int = 0
    records: int = 0


def find_files(folder: Path) -> list[Path]:
    """The complete log files in a folder, oldest first by name."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def read(files: list[Path], size: tuple[int, int], damage: Damage) -> Iterator[Request]:
    """The Predict requests in log files.

    Args:
        files: TFRecord files of PredictionLog.
        size: height and width of the model's images, in pixels.
        damage: counts what is skipped: a broken record, and whatever follows the place where a file breaks.
    """
    for file in files:
        records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
        while True:
            try:
                record = next(records, None)
            except tf.errors.DataLossError:
                damage.files += 1
                break
            if record is None:
                break
            try:
                entry = prediction_log_pb2.PredictionLog.FromString(record)
            except DecodeError:
                damage.records += 1
                continue
            if entry.HasField("predict_log"):
                try:
                    yield _request(entry.predict_log, size)
                except (ServingError, ValueError):
                    damage.records += 1


def _request(entry: prediction_log_pb2.PredictLog, size: tuple[int, int]) -> Request:
    spec = entry.response.model_spec
    inputs, outputs = (
        {name: tensors.to_array(value, name) for name, value in message.items()}
        for message in (entry.request.inputs, entry.response.outputs)
    )
    probabilities = outputs.get(features.PROBABILITIES)
    classes = outputs.get(features.CLASSES)
    if classes is None and probabilities is not None:
        classes = probabilities.argmax(axis=1)
    return Request(
        model=spec.name,
        version=spec.version.value,
        images=_images(inputs, size),
        classes=None if classes is None else classes.astype(np.int64),
        confidence=None if probabilities is None else probabilities.max(axis=1).astype(np.float32),
    )


def _images(inputs: Mapping[str, NDArray], size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The images of a request, whichever signature it was for."""
    if features.IMAGE in inputs:
        images = inputs[features.IMAGE].astype(np.uint8)
    elif features.IMAGE_BYTES in inputs:
        images = np.stack([_decoded(content) for content in inputs[features.IMAGE_BYTES]])
    elif features.EXAMPLES in inputs:
        images = np.stack([_raw(example, size) for example in inputs[features.EXAMPLES]])
    else:
        return None
    if images.shape[1:] != size:
        raise ValueError(f"images of {images.shape[1:]} pixels, not {size}")
    return images


def _decoded(content: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            return np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"no picture: {error}") from None


def _raw(example: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    try:
        feature = tf.train.Example.FromString(example).features.feature[features.IMAGE]
    except DecodeError as error:
        raise ValueError(f"no example: {error}") from None
    return np.frombuffer(b"".join(feature.bytes_list.value), np.uint8).reshape(size)
