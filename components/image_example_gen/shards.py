"""Examples on disk: serialized tf.Examples in TFRecord files that appear whole or not at all."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.image_example_gen.split import Batch
from trainer import features

# Not compressed: the readers of TFX, Beam and tf.data go by the suffix, gzip costs more time than it
# saves, and no file of MNIST is large.
NAME = "data_tfrecord-{shard:05d}-of-{shards:05d}"


@dataclass(frozen=True)
class Content:
    """What a shard's examples hold besides their labels: images and ids, n each."""

    images: Sequence[bytes]
    ids: Sequence[str]


def write_shard(
    folder: str,
    staging: str,
    shard: int,
    shards: int,
    batches: Iterable[Batch],
    content_at: Callable[[NDArray[np.int64]], Content],
) -> int:
    """Write one file of a split, ordered by content hash, so that equal data give equal bytes.

    Args:
        folder: of the split; any file system that TensorFlow knows.
        staging: a folder on the same file system for the unfinished file.
        shard: which file, from 0.
        shards: how many there are.
        batches: the examples of this file, at least one batch, which may be empty.
        content_at: from indices, int64 [n], to the images there; called once, so that a shard's images are
            in memory together.

    Returns:
        The number of examples written.
    """
    batch = Batch.concatenate(batches)
    batch = batch.select(np.lexsort((batch.indices, batch.labels, batch.hashes)))
    tf.io.gfile.makedirs(staging)
    tf.io.gfile.makedirs(folder)
    # A runner may do a bundle of work twice, even at the same time.
    unfinished = str(PurePath(staging) / uuid.uuid4().hex)
    content = content_at(batch.indices)
    with tf.io.TFRecordWriter(unfinished) as writer:
        for record in serialize(content.images, batch.labels.tolist(), content.ids):
            writer.write(record)
    name = NAME.format(shard=shard, shards=shards)
    tf.io.gfile.rename(unfinished, str(PurePath(folder) / name), overwrite=True)
    return len(batch)


def serialize(images: Sequence[bytes], labels: Sequence[int], ids: Sequence[str]) -> Iterator[bytes]:
    """Each example as a serialized tf.Example: `id` and `image` (one bytes value each), `label` (int64).

    Protobuf takes many times as long, so this writes its wire format: an Example holds Features in field 1,
    these a map in field 1, whose entries have key 1 and value 2, a Feature. Features come by their keys, as
    protobuf's deterministic serialization has them.
    """
    for image, label, where in zip(images, labels, ids, strict=True):
        name = where.encode()
        before, between, after = _frame(len(name), len(image), label)
        yield before + name + between + image + after


@functools.lru_cache(maxsize=1 << 14)
def _frame(id_bytes: int, image_bytes: int, label: int) -> tuple[bytes, bytes, bytes]:
    """What stands around the id and the image of these lengths."""
    of_id = _entry(features.ID, _bytes_feature(bytes(id_bytes)))
    of_image = _entry(features.IMAGE, _bytes_feature(bytes(image_bytes)))
    of_label = _entry(features.LABEL, _int64_feature(label))
    whole = _field(1, of_id + of_image + of_label)
    # A value is the last in its entry.
    begin = len(whole) - len(of_label) - len(of_image) - id_bytes
    return whole[:begin], of_image[: len(of_image) - image_bytes], of_label


def _entry(key: str, feature: bytes) -> bytes:
    return _field(1, _field(1, key.encode()) + _field(2, feature))


def _bytes_feature(value: bytes) -> bytes:
    return _field(1, _field(1, value))


def _int64_feature(value: int) -> bytes:
    return _field(3, _field(1, _varint(value)))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
