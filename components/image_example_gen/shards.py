"""Examples on disk: serialized tf.Examples in TFRecord files that appear whole or not at all."""

from __future__ import annotations

import functools
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.image_example_gen.sources import Pictures
from components.image_example_gen.split import Batch
from trainer import features

# Not compressed: the readers of TFX, Beam and tf.data go by the suffix, gzip costs more time than it
# saves, and no file of MNIST is large.
NAME = "data_tfrecord-{shard:05d}-of-{shards:05d}"
_TURNS = 1 << 16  # places in a file that are Python's numbers at once


def write_shard(
    folder: str,
    staging: str,
    shard: int,
    shards: int,
    batches: Iterable[Batch],
    pictures_at: Callable[[NDArray[np.int64]], Iterable[Pictures]],
) -> int:
    """Write one file of a split, ordered by content hash, so that equal data give equal bytes.

    The source is read once and in its own order. The examples wait for their turn in a temporary file, as
    large as the shard, so that memory does not grow with it.

    Args:
        folder: of the split; any file system that TensorFlow knows.
        staging: a folder on the same file system for the unfinished file.
        shard: which file, from 0.
        shards: how many there are.
        batches: the examples of this file, at least one batch, which may be empty.
        pictures_at: from ascending indices, int64 [n], to the pictures there, some at a time; called once.

    Returns:
        The number of examples written.
    """
    batch = Batch.concatenate(batches)
    batch = batch.select(np.argsort(batch.indices))
    tf.io.gfile.makedirs(staging)
    tf.io.gfile.makedirs(folder)
    # A runner may do a bundle of work twice, even at the same time.
    unfinished = str(PurePath(staging) / uuid.uuid4().hex)
    with tempfile.TemporaryFile() as waiting, tf.io.TFRecordWriter(unfinished) as writer:
        labels, ends = np.zeros(len(batch), np.int64), np.zeros(len(batch) + 1, np.int64)
        done = 0
        for pictures in pictures_at(batch.indices.astype(np.int64)):
            until = done + len(pictures)
            records = [*serialize(pictures.images, pictures.labels.tolist(), pictures.ids)]
            waiting.write(b"".join(records))
            labels[done:until] = pictures.labels
            ends[done + 1 : until + 1] = ends[done] + np.cumsum([len(record) for record in records])
            done = until
        waiting.flush()
        order = np.lexsort((labels, batch.hashes))  # stable: equal ones stay in the order of the source
        for first in range(0, len(order), _TURNS):
            turns = order[first : first + _TURNS]
            for begin, end in zip(ends[turns].tolist(), ends[turns + 1].tolist(), strict=True):
                writer.write(os.pread(waiting.fileno(), end - begin, begin))
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
