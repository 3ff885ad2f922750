"""The test images and what the model says of them, and a few images of every split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

from components.image_example_gen.sources import idx
from trainer import features

_BATCH = 1000  # images


@dataclass(frozen=True)
class Answers:
    """The test split in the order of its file, so that a place in it is the image's index.

    Attributes:
        images: uint8 [N, H, W].
        labels: int64 [N].
        probabilities: float32 [N, C].
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """int64 [N]."""
        return self.probabilities.argmax(axis=1)

    @property
    def confidence(self) -> NDArray[np.float32]:
        """Probability of the predicted class, [N]."""
        return self.probabilities.max(axis=1)


def ask(model_dir: str, dataset_dir: str) -> Answers:
    """Ask the model about every test image.

    Args:
        model_dir: folder of the SavedModel, with the signature `pixels`.
        dataset_dir: folder of the IDX files.
    """
    files = idx.find_files(Path(dataset_dir))
    model = tf.saved_model.load(model_dir)
    classify = model.signatures[features.SIGNATURE_PIXELS]
    images, labels, probabilities = [], [], []
    for some_images, some_labels in idx.stream(files.test_images, files.test_labels, _BATCH, None):
        images.append(some_images.copy())
        labels.append(some_labels.astype(np.int64))
        answer = classify(**{features.IMAGE: tf.constant(some_images)})
        probabilities.append(answer[features.PROBABILITIES].numpy())
    return Answers(np.concatenate(images), np.concatenate(labels), np.concatenate(probabilities))


def samples(
    examples: Artifact, split: str, size: tuple[int, int], classes: int
) -> list[tuple[int, NDArray[np.uint8]]]:
    """The first example of each class in the first file of a split: label and uint8 [H, W] each.

    A class that the first thousand examples lack is left out.
    """
    pattern = str(PurePath(artifact_utils.get_split_uri([examples], split)) / "*")
    first_file = min(fileio.glob(pattern))
    found: dict[int, NDArray[np.uint8]] = {}
    for record in tf.data.TFRecordDataset(first_file).take(_BATCH):
        feature = tf.train.Example.FromString(record.numpy()).features.feature
        label = feature[features.LABEL].int64_list.value[0]
        if label not in found:
            pixels = np.frombuffer(feature[features.IMAGE].bytes_list.value[0], np.uint8)
            found[label] = pixels.reshape(size)
        if len(found) == classes:
            break
    return sorted(found.items(), key=lambda pair: pair[0])
