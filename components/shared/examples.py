"""Examples read back from an Examples artifact, in batches of arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer import features

_BATCH = 4096
_NO_LABEL = -1
# Parsing must not stop at an example that lacks a feature: how many do is one of the facts.
_SPEC = {
    features.IMAGE: tf.io.FixedLenFeature([], tf.string, default_value=b""),
    features.LABEL: tf.io.FixedLenFeature([], tf.int64, default_value=_NO_LABEL),
}


def read_split(
    folder: str, height: int, width: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]]:
    """The examples of one split.

    Args:
        folder: of the split's TFRecord files, on any file system that TensorFlow knows.
        height: of the images, in pixels.
        width: in pixels.

    Yields:
        Images uint8 [k, height, width], those of the right size; labels int64 [n], -1 where there is none;
        and which of the n examples have such an image, bool [n] with k times True.
    """
    paths = sorted(tf.io.gfile.glob(str(PurePath(folder) / "*")))
    for serialized in tf.data.TFRecordDataset(paths, num_parallel_reads=1).batch(_BATCH):
        parsed = tf.io.parse_example(serialized, _SPEC)
        raw = parsed[features.IMAGE]
        good = (tf.strings.length(raw) == height * width).numpy()
        content = b"".join(raw.numpy()[good])
        yield (
            np.frombuffer(content, np.uint8).reshape(-1, height, width),
            parsed[features.LABEL].numpy(),
            good,
        )
