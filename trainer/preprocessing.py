"""preprocessing_fn: raw bytes to what the network reads; Transform puts its graph into every model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer import features, pictures
from trainer.features import ImageInput, ImageShape


def preprocessing_fn(
    inputs: Mapping[str, tf.Tensor], custom_config: Mapping[str, Any]
) -> dict[str, tf.Tensor]:
    """Decode and scale a batch of raw examples.

    Args:
        inputs: `image`: string [N] or [N, 1], pixels or a picture file each, as `custom_config` says;
            `label`: int64 [N] or [N, 1].
        custom_config: `images`, the fields of features.ImageInput by name.

    Returns:
        `image`: float32 [N, height, width, channels] in [0, 1]; `label`: int64 [N].

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, for pixels of another length, or no picture.
    """
    given = ImageInput.of(custom_config["images"])
    raw = tf.reshape(inputs[features.IMAGE], [-1])
    if given.encoded:
        pixels = pictures.decode_files(raw, given.shape, given.fit)
    else:
        pixels = decode_pixels(raw, given.shape)
    pixels = tf.identity(pixels, features.DECODED)  # where the server enters with pixels
    label = tf.reshape(tf.cast(inputs[features.LABEL], tf.int64), [-1])
    return {features.IMAGE: scale(pixels), features.LABEL: label}


def decode_pixels(raw: tf.Tensor, shape: ImageShape) -> tf.Tensor:
    """Raw pixels to images.

    Args:
        raw: string [N], height * width * channels uint8 each, row-major.
        shape: of the images.

    Returns:
        uint8 [N, height, width, channels].

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, for an image of another length.
    """
    size = shape.height * shape.width * shape.channels
    lengths = tf.strings.length(raw)
    complaint = f"an image must be {shape}, {size} bytes; the lengths in bytes are"
    check = tf.debugging.Assert(tf.reduce_all(tf.equal(lengths, size)), [complaint, lengths])
    # Without the check decode_raw would cut or pad what has another length.
    with tf.control_dependencies([check] if check is not None else []):
        pixels = tf.io.decode_raw(raw, tf.uint8, fixed_length=size)
    return tf.reshape(pixels, [-1, *shape])


def scale(pixels: tf.Tensor) -> tf.Tensor:
    """uint8 to float32 in [0, 1]."""
    return tf.cast(pixels, tf.float32) / 255.0
