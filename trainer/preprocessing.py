"""preprocessing_fn: raw bytes to what the network reads; Transform puts its graph into every model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer import features


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Decode and scale a batch of raw examples.

    Args:
        inputs: `image`: string [N] or [N, 1], height * width uint8 each, row-major; `label`: int64 [N] or
            [N, 1].
        custom_config: `height` and `width` of the images, in pixels.

    Returns:
        `image`: float32 [N, height, width, 1] in [0, 1]; `label`: int64 [N].

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, for an image of another length.
    """
    image = decode_images(inputs[features.IMAGE], int(custom_config["height"]), int(custom_config["width"]))
    label = tf.reshape(tf.cast(inputs[features.LABEL], tf.int64), [-1])
    return {features.IMAGE: image, features.LABEL: label}


def decode_images(raw: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Raw pixels to scaled ones.

    Args:
        raw: string [N] or [N, 1], height * width uint8 each, row-major.
        height: in pixels.
        width: in pixels.

    Returns:
        float32 [N, height, width, 1] in [0, 1].

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, for an image of another length.
    """
    raw = tf.reshape(raw, [-1])
    size = height * width
    lengths = tf.strings.length(raw)
    complaint = f"an image must be {height} x {width} pixels, {size} bytes; the lengths in bytes are"
    check = tf.debugging.Assert(tf.reduce_all(tf.equal(lengths, size)), [complaint, lengths])
    # Without the check decode_raw would cut or pad what has another length.
    with tf.control_dependencies([check] if check is not None else []):
        pixels = tf.io.decode_raw(raw, tf.uint8, fixed_length=size)
    return tf.reshape(tf.cast(pixels, tf.float32) / 255.0, [-1, height, width, 1])
