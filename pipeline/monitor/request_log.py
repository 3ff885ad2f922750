"""Reads back what `request_log` writes: the images that were asked about, and what the model said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow_serving.apis import prediction_log_pb2

from components.shared.classifier import Classifier, ModelError
from serving.protocol import tensors
from serving.protocol.errors import ServingError
from trainer import features
from trainer.features import ImageShape

SUFFIX = ".tfrecord"


@dataclass(frozen=True)
class Request:
    """One logged request, and its answer.

    Attributes:
        model: name of the model.
        version: that answered.
        images: uint8 [n, H, W], with colours [n, H, W, C]; None where they are not to be had.
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


@dataclass(frozen=True)
class Reader:
    """Makes of a request the images that the network got.

    Attributes:
        model: which decodes picture files as it does on the server.
        shape: of its images.
    """

    model: Classifier
    shape: ImageShape

    def images(self, inputs: Mapping[str, NDArray]) -> NDArray[np.uint8] | None:
        """The images of a request, whichever signature it was for; None where there are none.

        Raises:
            ValueError, ModelError: for what the network cannot have got.
        """
        if features.IMAGE in inputs:
            given = inputs[features.IMAGE]
            images = np.rint(given * 255) if given.dtype.kind == "f" else given
        elif features.IMAGE_BYTES in inputs:
            return self._decoded(inputs[features.IMAGE_BYTES].ravel().tolist())
        elif features.EXAMPLES in inputs:
            return self._of_examples(inputs[features.EXAMPLES])
        else:
            return None
        if images.size != len(images) * math.prod(self.shape):
            raise ValueError(f"images of {images.shape[1:]} pixels, not {self.shape}")
        return self._shaped(images.astype(np.uint8))

    def _decoded(self, files: list[bytes]) -> NDArray[np.uint8] | None:
        return self.model.decoded(files) if self.model.can_decode else None

    def _of_examples(self, examples: NDArray) -> NDArray[np.uint8] | None:
        raw = [_raw(example) for example in examples]
        if any(len(image) != math.prod(self.shape) for image in raw):
            return self._decoded(raw)
        return self._shaped(np.frombuffer(b"".join(raw), np.uint8))

    def _shaped(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        images = pixels.reshape(-1, *self.shape)
        return images[..., 0] if self.shape.channels == 1 else images


def read(files: list[Path], reader: Reader, damage: Damage) -> Iterator[Request]:
    """The Predict requests in log files.

    Args:
        files: TFRecord files of PredictionLog.
        reader: of the model that was asked.
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
            # To see what the network gets of a picture is to ask it nothing.
            if entry.HasField("predict_log") and not _only_decodes(entry.predict_log):
                try:
                    yield _request(entry.predict_log, reader)
                except (ServingError, ValueError, ModelError):
                    damage.records += 1


def _only_decodes(entry: prediction_log_pb2.PredictLog) -> bool:
    return features.NAMES in entry.response.outputs and features.PROBABILITIES not in entry.response.outputs


def _request(entry: prediction_log_pb2.PredictLog, reader: Reader) -> Request:
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
        images=reader.images(inputs),
        classes=None if classes is None else classes.astype(np.int64),
        confidence=None if probabilities is None else probabilities.max(axis=1).astype(np.float32),
    )


def _raw(example: bytes) -> bytes:
    try:
        feature = tf.train.Example.FromString(example).features.feature[features.IMAGE]
    except DecodeError as error:
        raise ValueError(f"no example: {error}") from None
    return b"".join(feature.bytes_list.value)
