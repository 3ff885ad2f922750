"""Picture files to pixels, in the graph: what Transform does with encoded examples, and every server.

One picture at a time, so that a picture's pixels are the same in a batch of any size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import tensorflow as tf

from trainer import centring
from trainer.features import FIT_CENTER, ImageShape

Fit = Literal["crop", "pad", "stretch", "center"]

# ITU-R 601-2 luma in 65536ths, as Pillow converts to grey.
_LUMA, _WHOLE = (19595, 38470, 7471), 65536

_EXIF, _EXIF_MARKER, _SCAN_MARKER = b"Exif\0\0", 0xE1, 0xDA
_ORIENTATION = 0x0112  # EXIF's tag
_HEAD_BYTES = 1 << 17  # EXIF is one of the first segments of a JPEG file, and at most 64 KB


def decode_files(files: tf.Tensor, shape: ImageShape, fit: str) -> tf.Tensor:
    """Picture files of any size to images of one shape.

    Args:
        files: string [N], a PNG, JPEG, WebP, BMP or GIF (its first frame) each.
        shape: of the images.
        fit: what another aspect ratio gets: `crop` to the middle, `pad` with zeros, or `stretch`. With
            `center` a picture of another size shows a digit, dark or light, which is scaled and centred as
            MNIST's were: see trainer.centring. For one channel.

    Returns:
        uint8 [N, height, width, channels], upright as EXIF says; one of that size is not touched.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, for what is no picture; with `center` for a
            blank one too.
        ValueError: for `center` with several channels.
    """
    if fit == FIT_CENTER and shape.channels != 1:
        raise ValueError(f"digits have one channel, not {shape.channels}")

    def image(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        content, turned = inputs
        stored = decode_grey(content) if fit == FIT_CENTER else decode(content, shape.channels)
        upright = _upright(stored, turned)
        return _digit(upright, shape) if fit == FIT_CENTER else resize(upright, shape, fit)

    # To read an orientation takes ten times as long as to decode a small picture, and so does a tf.cond for
    # each that leaves it out: operations in a branch that is not taken cost time too.
    turned = tf.cond(
        tf.reduce_any(_has_exif(files)),
        lambda: _one_by_one(orientation, files, tf.TensorSpec([], tf.int32)),
        lambda: tf.ones_like(tf.strings.length(files)),
    )
    return _one_by_one(image, (files, turned), tf.TensorSpec(shape, tf.uint8))


def _one_by_one(function: Callable[[Any], tf.Tensor], elements: Any, signature: tf.TensorSpec) -> tf.Tensor:
    # Not side by side: a photo takes some hundred megabytes on its way.
    return tf.map_fn(function, elements, parallel_iterations=1, fn_output_signature=signature)


def decode(content: tf.Tensor, channels: int) -> tf.Tensor:
    """One picture file, string [], to uint8 [h, w, channels], as it is stored."""
    if channels == 3:
        pixels = tf.io.decode_image(content, channels=3, expand_animations=False)
    else:
        # Only these two are decoded to grey; in spite of its name decode_png reads JPEG too.
        pixels = tf.cond(
            _is_png(content) | _is_jpeg_without_black(content),
            lambda: tf.io.decode_png(content, channels=1),
            lambda: tf.image.rgb_to_grayscale(
                tf.io.decode_image(content, channels=3, expand_animations=False)
            ),
        )
    return tf.ensure_shape(pixels, [None, None, channels])


def decode_grey(content: tf.Tensor) -> tf.Tensor:
    """One picture file, string [], to uint8 [h, w, 1], as it is stored, in grey levels as Pillow has them.

    A transparent PNG is laid on whichever of black and white its opaque pixels differ from more.
    """

    def from_png() -> tf.Tensor:
        pixels = tf.cast(tf.io.decode_png(content, channels=4), tf.int32)
        luma = sum(weight * pixels[..., at] for at, weight in enumerate(_LUMA))
        levels = tf.cast((luma + _WHOLE // 2) // _WHOLE, tf.float32)
        opacity = pixels[..., 3]
        # Of 1, 2 or 4 bits a pixel, TensorFlow takes the largest value of those for opaque: 1, 3 or 15.
        opacity = tf.where(tf.reduce_max(opacity) < 16, 255, opacity)
        alpha = tf.cast(opacity, tf.float32) / 255
        mean = tf.reduce_sum(levels * alpha) / tf.maximum(tf.reduce_sum(alpha), 1)
        ground = tf.where(mean < 127.5, 255.0, 0.0)
        return tf.cast(tf.round(levels * alpha + ground * (1 - alpha)), tf.uint8)[..., None]

    return tf.cond(_is_png(content), from_png, lambda: decode(content, 1))


def _has_exif(files: tf.Tensor) -> tf.Tensor:
    """Which of string [N] may be JPEG files with an orientation: bool [N]."""
    head = tf.strings.substr(files, 0, _HEAD_BYTES)
    return _is_jpeg(files) & tf.strings.regex_full_match(head, rb"\C*Exif\x00\x00\C*")


def _is_jpeg(content: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(content, 0, 3), b"\xff\xd8\xff")


def _is_png(content: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(content, 0, 4), b"\x89PNG")


def _is_jpeg_without_black(content: tf.Tensor) -> tf.Tensor:
    """Whether it is a JPEG that TensorFlow can decode to grey: one in CMYK is none."""
    return tf.cond(
        _is_jpeg(content), lambda: tf.image.extract_jpeg_shape(content)[2] <= 3, lambda: tf.constant(False)
    )


def _digit(image: tf.Tensor, shape: ImageShape) -> tf.Tensor:
    """uint8 [h, w, 1] to uint8 [height, width, 1]; one of that size stays."""
    same = tf.reduce_all(tf.equal(tf.shape(image)[:2], shape[:2]))
    found = tf.cond(
        same,
        lambda: image[..., 0],
        lambda: centring.centred(image[..., 0], shape.height, shape.width),
    )
    return tf.reshape(found, shape)


def resize(image: tf.Tensor, shape: ImageShape, fit: str) -> tf.Tensor:
    """uint8 [h, w, channels] to uint8 [height, width, channels], antialiased; the same size stays."""
    size = tf.shape(image)[:2]
    same = tf.reduce_all(tf.equal(size, shape[:2]))

    def resized() -> tf.Tensor:
        height, width = tf.unstack(size)
        source = image
        if fit != "stretch":
            # Rounded to the nearest pixel, and at least one.
            by_width = tf.cast(tf.round(shape.height * width / shape.width), tf.int32)
            by_height = tf.cast(tf.round(shape.width * height / shape.height), tf.int32)
            if fit == "crop":
                target = tf.maximum(
                    tf.stack([tf.minimum(height, by_width), tf.minimum(width, by_height)]), 1
                )
                top, left = tf.unstack((size - target) // 2)
                source = tf.slice(image, [top, left, 0], [target[0], target[1], -1])
            else:
                target = tf.stack([tf.maximum(height, by_width), tf.maximum(width, by_height)])
                before = (target - size) // 2
                padding = tf.stack([before, target - size - before], axis=1)
                source = tf.pad(image, tf.concat([padding, [[0, 0]]], axis=0))
        smooth = tf.image.resize(source, shape[:2], method="bilinear", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(smooth), 0, 255), tf.uint8)

    return tf.ensure_shape(tf.cond(same, lambda: image, resized), shape)


def orientation(content: tf.Tensor) -> tf.Tensor:
    """EXIF's orientation of a JPEG file, string [] to int32 []: 1 to 8, and 1 for anything else."""
    head = tf.strings.substr(content, 0, _HEAD_BYTES)
    values = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32)
    size = tf.size(values)

    def bytes_at(at: tf.Tensor, count: int) -> tf.Tensor:
        """int32 [..., count] from each place on; 0 outside."""
        places = at[..., None] + tf.range(count)
        inside = (places >= 0) & (places < size)
        return tf.where(inside, tf.gather(values, tf.clip_by_value(places, 0, tf.maximum(size - 1, 0))), 0)

    def is_exif(segment: tf.Tensor) -> tf.Tensor:
        expected = tf.constant(list(_EXIF), tf.int32)
        return tf.equal(segment[1], _EXIF_MARKER) & tf.reduce_all(tf.equal(segment[4:], expected))

    def head_at(at: tf.Tensor) -> tf.Tensor:
        return bytes_at(at, 4 + len(_EXIF))

    def goes_on(at: tf.Tensor) -> tf.Tensor:
        segment = head_at(at)
        begins = tf.equal(segment[0], 0xFF) & tf.not_equal(segment[1], _SCAN_MARKER)
        return begins & (at + 4 <= size) & tf.logical_not(is_exif(segment))

    def next_segment(at: tf.Tensor) -> tf.Tensor:
        length = bytes_at(at + 2, 2)
        return at + 2 + tf.maximum(length[0] * 256 + length[1], 2)

    def look() -> tf.Tensor:
        at = tf.while_loop(goes_on, lambda at: (next_segment(at),), (tf.constant(2),))[0]
        tiff = at + 4 + len(_EXIF)
        little = tf.equal(bytes_at(tiff, 1)[0], ord("I"))

        def number(at: tf.Tensor, length: int) -> tf.Tensor:
            weights = [256**place for place in range(length)]
            return tf.reduce_sum(bytes_at(at, length) * tf.where(little, weights, weights[::-1]), -1)

        directory = tiff + tf.clip_by_value(number(tiff + 4, 4), 0, size)
        entries = directory + 2 + 12 * tf.range(tf.clip_by_value(number(directory, 2), 0, 1024))
        here = tf.equal(number(entries, 2), _ORIENTATION)
        found = tf.reduce_max(tf.where(here, number(entries + 8, 2), 0))
        return tf.where(is_exif(head_at(at)) & (found >= 1) & (found <= 8), found, 1)

    return tf.cond(_is_jpeg(content), look, lambda: tf.constant(1))


def _upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undo what the camera was turned by: the same eight cases as Pillow's exif_transpose."""

    def turned() -> tf.Tensor:
        axes = tf.gather([[0, 1, 2]] * 5 + [[1, 0, 2]] * 4, orientation)
        mirrored = tf.gather(
            [(at in (3, 4, 7, 8), at in (2, 3, 6, 7), False) for at in range(9)], orientation
        )
        # tf.reverse takes no axes that are known only then.
        return tf.raw_ops.Reverse(tensor=tf.transpose(image, axes), dims=mirrored)

    return tf.cond(tf.equal(orientation, 1), lambda: image, turned)
