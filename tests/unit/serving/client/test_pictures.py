"""A picture of a digit becomes what MNIST would have made of it."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageDraw

from components.image_example_gen.sources import idx
from serving.client import pictures


@pytest.fixture(scope="module")
def digits(mnist_dir: Path) -> np.ndarray:
    """The first 200 test digits, uint8 [200, 28, 28]."""
    return next(idx.read_images(mnist_dir / "t10k-images-idx3-ubyte", 200))


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def off_by(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean difference in grey levels, over all pixels."""
    return float(np.abs(ours.astype(int) - theirs.astype(int)).mean())


def test_mnist_itself_stays_what_it_is(digits: np.ndarray) -> None:
    again = np.stack([pictures.normalise(image, 28, 28) for image in digits])
    assert off_by(again, digits) < 0.1
    assert np.mean([np.array_equal(a, b) for a, b in zip(again, digits, strict=True)]) > 0.7


@pytest.mark.parametrize("dark", [False, True], ids=["light on dark", "dark on light"])
@pytest.mark.parametrize("scale", [1, 3, 10])
def test_size_place_and_ground_do_not_matter(digits: np.ndarray, scale: int, dark: bool) -> None:
    generator = np.random.default_rng(scale)
    for image in digits[:40]:
        canvas = np.zeros((330, 410), np.uint8)
        top, left = generator.integers(0, 330 - 28 * scale), generator.integers(0, 410 - 28 * scale)
        canvas[top : top + 28 * scale, left : left + 28 * scale] = np.kron(
            image, np.ones((scale, scale), np.uint8)
        )
        if dark:
            canvas = 240 - canvas // 2
        assert off_by(pictures.normalise(canvas, 28, 28), image) < 1.5


def test_noise_of_the_ground_is_ignored(digits: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    differences = []
    for image in digits[:40]:
        canvas = np.full((300, 300), 220.0)
        canvas[40:264, 30:254] -= np.kron(image, np.ones((8, 8))) * 0.7
        noisy = (canvas + generator.normal(0, 6, canvas.shape)).clip(0, 255)
        differences.append(off_by(pictures.normalise(noisy, 28, 28), image))
    # A centre of mass half-way between two pixels may go to the other one, which is a difference of ten.
    assert np.median(differences) < 5


@pytest.mark.parametrize("width", [2, 6, 40])
def test_a_pen_as_thin_as_a_hair_leaves_a_stroke_to_be_seen(width: int) -> None:
    image = Image.new("L", (900, 700), 255)
    ImageDraw.Draw(image).line([(300, 100), (600, 100), (400, 600)], fill=0, width=width)
    field = pictures.normalise(np.asarray(image), 28, 28)
    inked = field > 127
    rows = inked.any(axis=1)
    assert rows.sum() >= 19, "the stroke is broken"
    assert 1 <= inked[rows].sum(axis=1)[5:].mean() <= 5


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    st.integers(8, 40),
    st.integers(8, 40),
)
def test_whatever_it_shows_it_fits(grey: np.ndarray, height: int, width: int) -> None:
    try:
        field = pictures.normalise(grey, height, width)
    except pictures.ImageError:
        assert int(grey.max()) - int(grey.min()) < 16  # blank
        return
    assert field.shape == (height, width)
    assert field.dtype == np.uint8
    assert field.max() == 255
    box = round(min(height, width) * pictures.BOX_SHARE)
    rows, columns = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    assert max(np.ptp(rows), np.ptp(columns)) < box + 1


def test_the_centre_of_mass_is_the_centre_of_the_field(digits: np.ndarray) -> None:
    rows, columns = np.mgrid[:28, :28]
    for image in digits:
        field = pictures.normalise(np.pad(image, ((3, 40), (50, 0))), 28, 28).astype(float)
        assert abs((field * rows).sum() / field.sum() - 14) <= 0.5
        assert abs((field * columns).sum() / field.sum() - 14) <= 0.5


@pytest.mark.parametrize(
    "grey", [np.zeros((5, 5)), np.full((1, 1), 255), np.full((28, 28), 130) + np.eye(28)]
)
def test_a_blank_picture_is_refused(grey: np.ndarray) -> None:
    with pytest.raises(pictures.ImageError, match="blank"):
        pictures.normalise(grey, 28, 28)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "I", "CMYK"])
def test_every_kind_of_picture_is_read(digits: np.ndarray, mode: str) -> None:
    image = Image.fromarray(digits[0])
    if mode.startswith("I"):
        image = Image.fromarray(digits[0].astype(np.uint16) * 257)
        image = image if mode == "I;16" else image.convert("I")
    else:
        image = image.convert(mode)
    form = "JPEG" if mode == "CMYK" else "PNG"
    grey = pictures.read(encoded(image, form))
    assert grey.dtype == np.uint8
    assert off_by(grey, digits[0]) < (20 if mode == "1" else 4)


def test_ink_on_nothing_is_seen_whatever_its_colour(digits: np.ndarray) -> None:
    for ink in (0, 255):
        image = Image.new("LA", (28, 28), (ink, 0))
        image.putalpha(Image.fromarray(digits[0]))
        assert off_by(pictures.normalise(pictures.read(encoded(image)), 28, 28), digits[0]) < 1


def test_a_photo_is_turned_as_its_camera_says(digits: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned clockwise
    differences = []
    for image in digits[:20]:
        turned = Image.fromarray(np.rot90(image).repeat(4, 0).repeat(4, 1))
        grey = pictures.read(encoded(turned, "JPEG", exif=exif, quality=95))
        differences.append(off_by(pictures.normalise(grey, 28, 28), image))
    assert np.median(differences) < 3


def png_that_claims(width: int, height: int) -> bytes:
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100)))):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "neither a PNG nor a JPEG"),
        (b"%PDF-1.7 no picture", "neither a PNG nor a JPEG"),
        (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "neither a PNG nor a JPEG"),
        (encoded(Image.new("L", (28, 28)))[:-20], "broken"),
        (png_that_claims(20_000, 20_000), "pixels"),
        (png_that_claims(2**31 - 1, 2**31 - 1), "pixels"),
    ],
    ids=["empty", "a document", "another format", "cut off", "too large", "absurd"],
)
def test_what_is_no_picture_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(pictures.ImageError, match=reason):
        pictures.read(content)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_give_a_picture_or_an_error_of_one_kind(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["PNG", "JPEG"]))
    content = bytearray(encoded(Image.radial_gradient("L").resize((32, 32)), form))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(pictures.ImageError):
        assert pictures.read(bytes(content)).ndim == 2
