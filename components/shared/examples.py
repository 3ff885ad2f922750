"""Examples read back from an Examples artifact: the one place that knows what a file of examples holds."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

from trainer import features, pictures
from trainer.features import ImageInput, ImageShape

# Custom properties of an Examples artifact, and a file in it.
IMAGES, CLASS_NAMES, ABSENT = "images", "class_names", "absent_classes"
SKIPPED_FILE = "skipped.json"  # pictures that could not be read, and why
BATCH = 4096
NO_LABEL = -1
# Parsing must not stop at an example that lacks a feature: how many do is one of the facts.
_SPEC = {
    features.IMAGE: tf.io.FixedLenFeature([], tf.string, default_value=b""),
    features.LABEL: tf.io.FixedLenFeature([], tf.int64, default_value=NO_LABEL),
    features.ID: tf.io.FixedLenFeature([], tf.string, default_value=b""),
}


@dataclass(frozen=True)
class Examples:
    """Some examples.

    Attributes:
        records: the serialized tf.Examples, a string tensor [n].
        labels: int64 [n], NO_LABEL where there is none.
        raw: the images' bytes as they are stored, objects [n]; empty where there is none.
        ids: where each comes from, objects [n]: bytes, empty where it does not say.
    """

    records: tf.Tensor
    labels: NDArray[np.int64]
    raw: NDArray[np.object_]
    ids: NDArray[np.object_]


def files(folder: str) -> list[str]:
    """The files of a split, in the order of their names; files that begin with a dot are none."""
    found = fileio.glob(str(PurePath(folder) / "*"))
    return sorted(path for path in found if not PurePath(path).name.startswith("."))


def split_files(artifact: Artifact, split: str) -> list[str]:
    """The files of a split of an Examples artifact, in the order of their names.

    Raises:
        ValueError: where there are none.
    """
    folder = artifact_utils.get_split_uri([artifact], split)
    found = files(folder)
    if not found:
        raise ValueError(f"split {split} has no files in {folder}")
    return found


def image_input(artifact: Artifact) -> ImageInput:
    """How the examples of an Examples artifact hold images, and what the network reads of them."""
    given = artifact.get_string_custom_property(IMAGES)
    if given:
        return ImageInput.of(json.loads(given))
    # Examples of before there were others than grey pixels.
    height, width = (artifact.get_int_custom_property(side) for side in ("height", "width"))
    return ImageInput(ImageShape(height, width), fit=features.FIT_CENTER)


def class_names(artifact: Artifact) -> list[str]:
    """The names of the classes of an Examples artifact, by label."""
    found: list[str] = json.loads(artifact.get_string_custom_property(CLASS_NAMES) or "[]")
    return found


def absent_classes(artifact: Artifact) -> list[int]:
    """Labels that no split of an Examples artifact has."""
    found: list[int] = json.loads(artifact.get_string_custom_property(ABSENT) or "[]")
    return found


def skipped(artifact: Artifact) -> dict[str, str]:
    """Pictures of the source that could not be read and are no examples: why, by their ids."""
    return json_file(artifact, SKIPPED_FILE)


def json_file(artifact: Artifact, name: str) -> dict[str, Any]:
    """The object in a JSON file of an artifact; empty where there is no such file."""
    path = str(PurePath(artifact.uri) / name)
    if not fileio.exists(path):
        return {}
    with fileio.open(path, "r") as file:
        content: dict[str, Any] = json.loads(file.read())
    return content


def records(paths: Sequence[str], batch: int = BATCH) -> Iterator[tf.Tensor]:
    """The serialized examples of files, one file after the other: string tensors [n]."""
    zipped = bool(paths) and all(path.endswith(".gz") for path in paths)
    yield from tf.data.TFRecordDataset(list(paths), "GZIP" if zipped else "").batch(batch).prefetch(1)


def read(paths: Sequence[str], batch: int = BATCH) -> Iterator[Examples]:
    """The examples of files, `batch` at a time, one file after the other."""
    for serialized in records(paths, batch):
        yield parse(serialized)


def parse(serialized: tf.Tensor | Sequence[bytes]) -> Examples:
    """What serialized examples hold."""
    tensor = tf.convert_to_tensor(serialized, tf.string)
    parsed = tf.io.parse_example(tensor, _SPEC)
    return Examples(
        records=tensor,
        labels=parsed[features.LABEL].numpy(),
        raw=parsed[features.IMAGE].numpy(),
        ids=parsed[features.ID].numpy(),
    )


def decode(raw: NDArray[np.object_], images: ImageInput) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The images that the network sees, from their stored bytes.

    Args:
        raw: bytes, [n].
        images: how they are stored.

    Returns:
        Images uint8 [k, H, W], with colours [k, H, W, 3], those that can be decoded, and which of the n
        these are, bool [n].
    """
    shape = images.shape
    if images.encoded:
        pixels, good = _decode_files(raw, images)
    else:
        size = math.prod(shape)
        good = np.fromiter((len(image) == size for image in raw), bool, len(raw))
        pixels = np.frombuffer(b"".join(raw[good]), np.uint8).reshape(-1, *shape)
    return pixels[..., 0] if shape.channels == 1 else pixels, good


def _decode_files(
    raw: NDArray[np.object_], images: ImageInput
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    decoder = _decoder(images)
    good = np.ones(len(raw), bool)
    try:
        return decoder(tf.constant(raw.tolist(), tf.string)).numpy(), good
    except tf.errors.InvalidArgumentError:
        found = [np.empty((0, *images.shape), np.uint8)]
        for number, one in enumerate(raw):
            try:
                found.append(decoder(tf.constant([one])).numpy())
            except tf.errors.InvalidArgumentError:
                good[number] = False
        return np.concatenate(found), good


@functools.cache
def _decoder(images: ImageInput) -> Callable[[tf.Tensor], tf.Tensor]:
    """Transform's own graph for picture files: string [n] to uint8 [n, H, W, C]."""

    def decode(content: tf.Tensor) -> tf.Tensor:
        return pictures.decode_files(content, images.shape, images.fit)

    traced: Callable[[tf.Tensor], tf.Tensor] = tf.function(
        decode, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
    )
    return traced
