"""Picture files in the graph, beside Pillow."""

from __future__ import annotations

import io
from typing import get_args

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainer import pictures
from trainer.features import ImageShape

NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def encoded(pixels: NDArray[np.uint8], form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def by_pillow(content: bytes, mode: str = "RGB") -> NDArray[np.uint8]:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert(mode))


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_forms_without_loss(form: str, channels: int) -> None:
    content = encoded(NOISE, form, **({"lossless": True} if form == "WEBP" else {}))
    decoded = pictures.decode(tf.constant(content), channels).numpy()
    if channels == 3:
        np.testing.assert_array_equal(decoded, by_pillow(content))
    else:
        off = np.abs(decoded[..., 0].astype(int) - by_pillow(content, "L"))
        assert off.max() <= 1


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.fromarray(NOISE // (number + 1)) for number in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    decoded = pictures.decode(tf.constant(buffer.getvalue()), 3).numpy()
    assert decoded.shape == NOISE.shape
    assert np.abs(decoded.astype(int) - by_pillow(buffer.getvalue())).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("endian", ["<", ">"])
def test_photos_are_upright_as_pillow_has_them(orientation: int, endian: str) -> None:
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    content = encoded(NOISE, "JPEG", exif=exif, quality=95)
    assert pictures.orientation(tf.constant(content)).numpy() == orientation
    expected = by_pillow(content)
    shape = ImageShape(*expected.shape)
    decoded = pictures.decode_files(tf.constant([encoded(NOISE, "PNG"), content]), shape, "crop").numpy()[1]
    # Two decoders of JPEG differ by rounding.
    assert np.abs(decoded.astype(int) - expected).mean() < 2


def test_a_cmyk_photo() -> None:
    buffer = io.BytesIO()
    smooth = np.linspace(0, 255, 20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8)
    Image.fromarray(smooth).convert("CMYK").save(buffer, "JPEG", quality=98)
    decoded = pictures.decode(tf.constant(buffer.getvalue()), 3).numpy()
    assert np.abs(decoded.astype(int) - by_pillow(buffer.getvalue())).mean() < 3


def test_a_cmyk_photo_in_grey() -> None:
    buffer = io.BytesIO()
    smooth = np.linspace(0, 255, 20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8)
    Image.fromarray(smooth).convert("CMYK").save(buffer, "JPEG", quality=98)
    decoded = pictures.decode(tf.constant(buffer.getvalue()), 1).numpy()[..., 0]
    assert np.abs(decoded.astype(int) - by_pillow(buffer.getvalue(), "L")).mean() < 3


def test_sixteen_bits_a_pixel() -> None:
    deep = (np.arange(600, dtype=np.uint16) * 100).reshape(20, 30)
    content = encoded(deep, "PNG")
    np.testing.assert_array_equal(pictures.decode(tf.constant(content), 1).numpy()[..., 0], deep >> 8)


@pytest.mark.slow
@given(st.binary(max_size=300))
@settings(max_examples=40, deadline=None)
def test_orientation_of_any_bytes(content: bytes) -> None:
    assert 1 <= pictures.orientation(tf.constant(b"\xff\xd8\xff" + content)).numpy() <= 8


@pytest.mark.slow
def test_a_picture_of_the_right_size_is_not_touched() -> None:
    decoded = pictures.decode_files(tf.constant([encoded(NOISE, "PNG")]), ImageShape(20, 30, 3), "crop")
    np.testing.assert_array_equal(decoded[0], NOISE)


@pytest.mark.parametrize(("fit", "corner"), [("crop", 200), ("pad", 0), ("stretch", 200)])
def test_ways_to_fit(fit: str, corner: int) -> None:
    wide = np.full((10, 40, 1), 200, np.uint8)
    resized = pictures.resize(tf.constant(wide), ImageShape(8, 8, 1), fit).numpy()
    assert resized.shape == (8, 8, 1)
    assert resized[0, 0, 0] == corner
    assert resized[4, 4, 0] > 100


def test_crop_takes_the_middle() -> None:
    wide = np.zeros((10, 40, 1), np.uint8)
    wide[:, 15:25] = 100
    np.testing.assert_array_equal(pictures.resize(tf.constant(wide), ImageShape(5, 5, 1), "crop"), 100)


def test_shrinking_is_antialiased() -> None:
    lines = np.zeros((64, 64, 1), np.uint8)
    lines[:, ::2] = 200
    resized = pictures.resize(tf.constant(lines), ImageShape(8, 8, 1), "stretch").numpy()
    assert np.abs(resized[:, 1:-1].astype(int) - 100).max() <= 5


@pytest.mark.slow
@pytest.mark.parametrize("fit", [fit for fit in get_args(pictures.Fit) if fit != "center"])
@given(height=st.integers(1, 40), width=st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_every_size_fits(fit: str, height: int, width: int) -> None:
    image = tf.ones([height, width, 3], tf.uint8)
    assert pictures.resize(image, ImageShape(9, 7, 3), fit).shape == (9, 7, 3)


@pytest.mark.slow
def test_pixels_do_not_depend_on_the_batch() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    # A batch without EXIF goes another way through the graph.
    files = [encoded(NOISE[:n, : n + 3], "JPEG", **({} if n % 5 else {"exif": exif})) for n in range(5, 20)]
    shape = ImageShape(8, 8, 3)
    together = pictures.decode_files(tf.constant(files), shape, "crop").numpy()
    compiled = tf.function(lambda content: pictures.decode_files(content, shape, "crop"))
    for number, file in enumerate(files):
        np.testing.assert_array_equal(compiled(tf.constant([file]))[0], together[number])


def test_what_is_no_picture_fails() -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        pictures.decode_files(tf.constant([b"no picture"]), ImageShape(8, 8, 3), "crop")
