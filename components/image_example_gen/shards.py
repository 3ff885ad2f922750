"""Examples on disk: serialized tf.Examples in TFRecord files that appear whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.image_example_gen.split import Batch
from trainer import features

# Not compressed: the readers of TFX, Beam and tf.data go by the suffix, gzip costs more time than it
# saves, and no file of MNIST is large.
NAME = "data_tfrecord-{shard:05d}-of-{shards:05d}"


def write_shard(
    folder: str,
    staging: str,
    shard: int,
    shards: int,
    batches: Iterable[Batch],
    images_at: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
) -> int:
    """Write one file of a split, ordered by content hash, so that equal data give equal bytes.

    Args:
        folder: of the split; any file system that TensorFlow knows.
        staging: a folder on the same file system for the unfinished file.
        shard: which file, from 0.
        shards: how many there are.
        batches: the examples of this file, at least one batch, which may be empty.
        images_at: from indices, int64 [n], to the images there, uint8 [n, H, W]; called once, so that a
            shard's images are in memory together.

    Returns:
        The number of examples written.
    """
    batch = Batch.concatenate(batches)
    batch = batch.select(np.lexsort((batch.indices, batch.labels, batch.hashes)))
    tf.io.gfile.makedirs(staging)
    tf.io.gfile.makedirs(folder)
    # A runner may do a bundle of work twice, even at the same time.
    unfinished = str(PurePath(staging) / uuid.uuid4().hex)
    with tf.io.TFRecordWriter(unfinished) as writer:
        for record in serialize(images_at(batch.indices), batch.labels):
            writer.write(record)
    name = NAME.format(shard=shard, shards=shards)
    tf.io.gfile.rename(unfinished, str(PurePath(folder) / name), overwrite=True)
    return len(batch)


def serialize(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Iterator[bytes]:
    """Each example as a serialized tf.Example: `image` (one bytes value, row-major) and `label` (int64).

    All examples of one label and one image size differ in the image's bytes alone, so protobuf
    serializes one of each label and the others are copies of it with another image in the same place.

    Args:
        images: uint8 [n, H, W].
        labels: uint8 [n].
    """
    image_bytes = images[0].size if len(images) else 0
    templates = {int(label): _template(image_bytes, int(label)) for label in np.unique(labels)}
    for image, label in zip(images, labels.tolist(), strict=True):
        head, tail = templates[label]
        yield head + image.tobytes() + tail


def _template(image_bytes: int, label: int) -> tuple[bytes, bytes]:
    """What comes before and after the image in a serialized example."""
    # Before the image there are only keys and lengths, and the last byte of a length is below 0x80: the
    # first run of so many 0xff is the image itself.
    mark = b"\xff" * image_bytes
    example = tf.train.Example(
        features=tf.train.Features(
            feature={
                features.IMAGE: tf.train.Feature(bytes_list=tf.train.BytesList(value=[mark])),
                features.LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
        )
    )
    # Deterministic: by key, so the order of the two features is the same in every process.
    head, _, tail = example.SerializeToString(deterministic=True).partition(mark)
    return head, tail
