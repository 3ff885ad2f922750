"""The tf.data input pipeline: files of tf.Examples to batches of transformed features.

An example stays what Transform's graph reads, raw bytes and a label, until its batch is made: MNIST is
43 MB so, and 172 MB as floats. Small splits are read once and kept in memory; larger ones are streamed in
each epoch, so that memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from trainer import features

# Of images in a split that is kept. The same on every machine: the order of the examples depends on it.
CACHE_BYTES = 192 << 20
_READ_BATCH = 512  # examples per call of the parser: large enough to make its overhead vanish
_SHUFFLE_BUFFER = 20_000  # examples that a streamed split mixes
_SHUFFLE_BYTES = 128 << 20  # of their images, about: photos are fewer at a time
_RAW_SPEC = {
    features.IMAGE: tf.io.FixedLenFeature([1], tf.string),
    features.LABEL: tf.io.FixedLenFeature([1], tf.int64),
}


@dataclass(frozen=True)
class Split:
    """One split of the data set, in memory or on disk.

    Attributes:
        files: the TFRecord files, sorted.
        size: examples.
        images: string [size], raw bytes; None where the split is streamed.
        labels: int64 [size]; None where the split is streamed.
        computed: float32 [size, F], in place of images: see trainer.frozen.
        image_bytes: of an image, the mean of the first ones.
    """

    files: tuple[str, ...]
    size: int
    images: tf.Tensor | None = None
    labels: tf.Tensor | None = None
    computed: np.ndarray | None = None
    image_bytes: float = 0.0


def read_split(patterns: Sequence[str], cache_bytes: int) -> Split:
    """Count the examples of a split and keep them in memory if they fit.

    Args:
        patterns: file patterns as in FnArgs; files whose names end in `.gz` are decompressed.
        cache_bytes: how many bytes of images may be kept.

    Raises:
        ValueError: where no file matches or the files hold no example.
    """
    files = tuple(sorted(file for pattern in patterns for file in tf.io.gfile.glob(pattern)))
    if not files:
        raise ValueError(f"no file matches {', '.join(patterns)}")
    images: list[tf.Tensor] = []
    labels: list[tf.Tensor] = []
    size = kept_bytes = 0
    with tf.device("CPU"):
        for image, label in _raw_batches(files, _READ_BATCH):
            size += len(label)
            kept_bytes += int(tf.reduce_sum(tf.strings.length(image)))
            if kept_bytes > cache_bytes:
                return Split(files, _count(files), image_bytes=kept_bytes / size)
            images.append(image)
            labels.append(label)
        if not size:
            raise ValueError(f"there is no example in {', '.join(files)}")
        return Split(files, size, tf.concat(images, 0), tf.concat(labels, 0), image_bytes=kept_bytes / size)


def _count(files: Sequence[str]) -> int:
    """How many examples there are; a third of the time of parsing them."""
    counts = tf.data.Dataset.from_tensor_slices(list(files)).flat_map(
        lambda file: _record_file(file).batch(_READ_BATCH).map(lambda records: tf.size(records, tf.int64))
    )
    return int(counts.reduce(tf.constant(0, tf.int64), tf.add))


@tf.autograph.experimental.do_not_convert
def training_batches(
    split: Split, transform: tft.TFTransformOutput, batch_size: int, seed: int, first_step: int = 0
) -> tf.data.Dataset:
    """Endless training batches: epoch after epoch, each in another order.

    Batches run over the ends of epochs, so that each has `batch_size` examples and each example comes
    exactly once an epoch. The order depends on seed and epoch alone.

    Args:
        split: what to train on.
        transform: Transform's output; its graph is applied batch by batch.
        batch_size: examples per batch.
        seed: of the order.
        first_step: batches to leave out at the start, to go on where a run was stopped.

    Returns:
        A dataset of ({"image": float32 [batch_size, H, W, 1]}, int64 [batch_size]).
    """
    if split.computed is not None:
        chosen = _cached(split, seed).batch(batch_size, drop_remainder=True).skip(first_step)
        return chosen.map(_computed(split), tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
    if split.images is None:
        raw = _streamed(split, seed).batch(batch_size, drop_remainder=True).map(_parse, tf.data.AUTOTUNE)
    else:
        raw = _cached(split, seed).batch(batch_size, drop_remainder=True)
        raw = raw.skip(first_step).map(_gather(split), tf.data.AUTOTUNE)
        first_step = 0
    return _finish(raw.skip(first_step), transform)


@tf.autograph.experimental.do_not_convert
def evaluation_batches(split: Split, transform: tft.TFTransformOutput, batch_size: int) -> tf.data.Dataset:
    """Each example of a split once, in the order of the files.

    Returns:
        A dataset of ({"image": float32 [N, H, W, 1]}, int64 [N]); the last batch may be smaller.
    """
    if split.computed is not None:
        return (
            tf.data.Dataset.range(split.size, output_type=tf.int32).batch(batch_size).map(_computed(split))
        )
    if split.images is None:
        raw = _raw_batches(split.files, batch_size)
    else:
        raw = tf.data.Dataset.from_tensor_slices((split.images, split.labels)).batch(batch_size)
    return _finish(raw, transform)


def _raw_batches(files: Sequence[str], batch_size: int) -> tf.data.Dataset:
    return _records(files).batch(batch_size).map(_parse, tf.data.AUTOTUNE)


def _records(files: Sequence[str]) -> tf.data.Dataset:
    # The compression is a property of a file, not of a split.
    return tf.data.Dataset.from_tensor_slices(list(files)).interleave(
        _record_file,
        cycle_length=4,
        block_length=64,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _record_file(file: tf.Tensor) -> tf.data.Dataset:
    zipped = tf.strings.regex_full_match(file, r".*\.gz")
    return tf.data.TFRecordDataset(file, compression_type=tf.where(zipped, "GZIP", ""), buffer_size=1 << 20)


def _parse(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    parsed = tf.io.parse_example(serialized, _RAW_SPEC)
    return tf.squeeze(parsed[features.IMAGE], 1), tf.squeeze(parsed[features.LABEL], 1)


def _cached(split: Split, seed: int) -> tf.data.Dataset:
    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        indices = tf.random.experimental.stateless_shuffle(
            tf.range(split.size, dtype=tf.int32), seed=tf.stack([tf.constant(seed, tf.int64), epoch])
        )
        return tf.data.Dataset.from_tensor_slices(indices)

    return tf.data.Dataset.counter().flat_map(order)


def _gather(split: Split) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    def gather(indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.gather(split.images, indices), tf.gather(split.labels, indices)

    return gather


def _computed(split: Split) -> Callable[[tf.Tensor], tuple[dict[str, tf.Tensor], tf.Tensor]]:
    """Indices to features and labels, read from where they are mapped into memory."""
    computed, labels = split.computed, split.labels
    assert computed is not None
    assert labels is not None

    def read(indices: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        rows = tf.numpy_function(computed.__getitem__, [indices], tf.float32, stateful=False)
        return {features.IMAGE: tf.ensure_shape(rows, [None, computed.shape[1]])}, tf.gather(
            labels, indices
        )

    return read


def _streamed(split: Split, seed: int) -> tf.data.Dataset:
    mixed = min(_SHUFFLE_BUFFER, max(1, int(_SHUFFLE_BYTES / max(split.image_bytes, 1))))
    return _records(split.files).shuffle(mixed, seed=seed, reshuffle_each_iteration=True).repeat()


def _finish(raw: tf.data.Dataset, transform: tft.TFTransformOutput) -> tf.data.Dataset:
    layer = transform.transform_features_layer()

    def apply(image: tf.Tensor, label: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        inputs = {features.IMAGE: tf.expand_dims(image, 1), features.LABEL: tf.expand_dims(label, 1)}
        transformed = dict(layer(inputs))
        label = transformed.pop(features.LABEL)
        return transformed, label

    return raw.map(apply, tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
