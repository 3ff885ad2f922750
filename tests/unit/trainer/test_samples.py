"""The samples for the page: of each class, as they were, and only where the page can show them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainer import features, samples
from trainer.features import ImageInput, ImageShape


def batches(images: np.ndarray, labels: np.ndarray) -> tf.data.Dataset:
    """uint8 [N, H, W, C] as Transform would give them."""
    scaled = images.astype(np.float32) / 255
    return tf.data.Dataset.from_tensor_slices(({features.IMAGE: scaled}, labels)).batch(7)


def test_the_first_of_each_class_are_written_as_they_were(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 5, 1), np.uint8)
    labels = np.arange(40) * 7 % 10 % 3
    samples.write(str(tmp_path), batches(images, labels), ImageInput(ImageShape(4, 5), fit="center"), "abc")
    document = json.loads((tmp_path / samples.SAMPLES_FILE).read_text())
    assert [document[key] for key in ("height", "width", "channels", "digits")] == [4, 5, 1, True]
    assert [sample["label"] for sample in document["samples"]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [sample["name"] for sample in document["samples"]] == list("aaabbbccc")
    expected = [images[labels == label][at].tobytes() for label in range(3) for at in range(3)]
    assert [base64.b64decode(sample["pixels"]) for sample in document["samples"]] == expected


def test_photos_are_written_in_their_colours(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    samples.write(str(tmp_path), batches(images, np.arange(2)), ImageInput(ImageShape(4, 5, 3)), "ab")
    document = json.loads((tmp_path / samples.SAMPLES_FILE).read_text())
    assert [document[key] for key in ("height", "width", "channels", "digits")] == [4, 5, 3, False]
    assert base64.b64decode(document["samples"][1]["pixels"]) == images[1].tobytes()


def test_large_images_are_none(tmp_path: Path) -> None:
    large = batches(np.zeros((2, 65, 65, 1), np.uint8), np.zeros(2, np.int64))
    samples.write(str(tmp_path), large, ImageInput(ImageShape(65, 65)), "a")
    assert json.loads((tmp_path / samples.SAMPLES_FILE).read_text())["samples"] == []
