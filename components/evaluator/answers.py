"""The examples of a split, and what a model says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

from components.evaluator.gates import Answers
from trainer import features

_BATCH = 1000  # images


class UnusableModelError(ValueError):
    """The model does not answer these examples: one line."""


@dataclass(frozen=True)
class Examples:
    """The images of a split.

    Attributes:
        images: uint8 [N, H, W].
        labels: int64 [N].
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def read(artifact: Artifact, split: str) -> Examples:
    """All examples of a split, in the order of their files' names.

    Raises:
        ValueError: where there are none.
    """
    pattern = str(PurePath(artifact_utils.get_split_uri([artifact], split)) / "*")
    files = sorted(fileio.glob(pattern))
    compression = "GZIP" if all(name.endswith(".gz") for name in files) else ""
    spec = {
        features.IMAGE: tf.io.FixedLenFeature([], tf.string),
        features.LABEL: tf.io.FixedLenFeature([], tf.int64),
    }
    size = artifact.get_int_custom_property("height"), artifact.get_int_custom_property("width")
    images, labels = [], []
    for records in tf.data.TFRecordDataset(files, compression).batch(_BATCH):
        parsed = tf.io.parse_example(records, spec)
        pixels = tf.io.decode_raw(parsed[features.IMAGE], tf.uint8).numpy()
        images.append(pixels.reshape(-1, *size))
        labels.append(parsed[features.LABEL].numpy())
    if not images:
        raise ValueError(f"split {split} has no examples")
    return Examples(np.concatenate(images), np.concatenate(labels))


class Classifier:
    """A SavedModel with the signature `pixels`."""

    def __init__(self, folder: str) -> None:
        """Load it.

        Raises:
            UnusableModelError: where it cannot be loaded, or has no such signature.
        """
        try:
            # The object keeps the variables of its signatures alive.
            self._model = tf.saved_model.load(folder)
            self._classify = self._model.signatures[features.SIGNATURE_PIXELS]
        except (KeyError, ValueError, OSError, tf.errors.OpError) as error:
            raise UnusableModelError(f"it cannot be asked: {_line(error)}") from error

    def ask(self, examples: Examples) -> Answers:
        """Its answers.

        Raises:
            UnusableModelError: where it takes no such images, or knows no such classes.
        """
        try:
            probabilities = np.concatenate(
                [
                    self._classify(
                        **{features.IMAGE: tf.constant(examples.images[start : start + _BATCH])}
                    )[features.PROBABILITIES].numpy()
                    for start in range(0, len(examples.images), _BATCH)
                ]
            )
        except (KeyError, ValueError, TypeError, tf.errors.OpError) as error:
            raise UnusableModelError(f"it takes no such images: {_line(error)}") from error
        if examples.labels.max() >= probabilities.shape[1]:
            raise UnusableModelError(
                f"it knows {probabilities.shape[1]} classes, and labels go up to {examples.labels.max()}"
            )
        return Answers(examples.labels, probabilities)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
