"""The samples for the page: of each class, as they were, and only where the page can show them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer import features, samples


def batches(images: np.ndarray, labels: np.ndarray) -> tf.data.Dataset:
    """uint8 [N, H, W, C] as Transform would give them."""
    scaled = images.astype(np.float32) / 255
    return tf.data.Dataset.from_tensor_slices(({features.IMAGE: scaled}, labels)).batch(7)


def test_the_first_of_each_class_are_written_as_they_were(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 5, 1), np.uint8)
    labels = np.arange(40) * 7 % 10 % 3
    samples.write(str(tmp_path), batches(images, labels))
    document = json.loads((tmp_path / samples.SAMPLES_FILE).read_text())
    assert (document["height"], document["width"]) == (4, 5)
    assert [sample["label"] for sample in document["samples"]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    expected = [images[labels == label][at].tobytes() for label in range(3) for at in range(3)]
    assert [base64.b64decode(sample["pixels"]) for sample in document["samples"]] == expected


def test_coloured_and_large_images_leave_no_file(tmp_path: Path) -> None:
    for shape in ((2, 4, 5, 3), (2, 65, 65, 1)):
        samples.write(str(tmp_path), batches(np.zeros(shape, np.uint8), np.zeros(2, np.int64)))
    assert not (tmp_path / samples.SAMPLES_FILE).exists()
