"""A picture of a digit becomes what MNIST would have made of it, in the graph, beside NumPy's way."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from components.image_example_gen.sources import idx
from tests.unit.trainer import numpy_centring
from tests.unit.trainer.numpy_centring import BlankError
from trainer import centring, pictures
from trainer.features import ImageShape

SHAPE = ImageShape(28, 28)
_GREY = tf.TensorSpec([None, None], tf.uint8)
_FILES = tf.TensorSpec([None], tf.string)
_field = tf.function(lambda grey: centring.centred(grey, 28, 28), input_signature=[_GREY], autograph=False)
_digits = tf.function(
    lambda files: pictures.decode_files(files, SHAPE, "center"), input_signature=[_FILES], autograph=False
)


def field(grey: NDArray) -> NDArray[np.uint8]:
    return _field(tf.constant(np.rint(grey).astype(np.uint8))).numpy()


def of_file(content: bytes) -> NDArray[np.uint8]:
    return _digits(tf.constant([content])).numpy()[0, ..., 0]


@pytest.fixture(scope="module")
def digits(mnist_dir: Path) -> np.ndarray:
    """The first 100 test digits, uint8 [100, 28, 28]."""
    return next(idx.read_images(mnist_dir / "t10k-images-idx3-ubyte", 100))


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def off_by(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean difference in grey levels, over all pixels."""
    return float(np.abs(ours.astype(int) - theirs.astype(int)).mean())


def photo(image: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Dark on light, eight times as large, not in the middle."""
    canvas = np.full((300, 300), 220.0)
    canvas[40:264, 30:254] -= np.kron(image, np.ones((8, 8))) * 0.7
    return (canvas + np.random.default_rng(seed).normal(0, noise, canvas.shape)).clip(0, 255)


def stroke(width: int) -> np.ndarray:
    image = Image.new("L", (900, 700), 255)
    ImageDraw.Draw(image).line([(300, 100), (600, 100), (400, 600)], fill=0, width=width)
    return np.asarray(image)


def test_it_is_what_numpy_makes_of_digits_photos_and_pens(digits: np.ndarray) -> None:
    cases = [*digits, *(255 - digits[:20])]
    cases += [np.rint(photo(image, 6, at)).astype(np.uint8) for at, image in enumerate(digits[:40])]
    cases += [stroke(width) for width in (2, 6, 40)]
    apart = [
        np.abs(field(case).astype(int) - numpy_centring.normalise(case, 28, 28)).max() for case in cases
    ]
    assert max(apart) <= 2


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_whatever_it_shows_it_is_what_numpy_makes_of_it_and_fits(grey: np.ndarray) -> None:
    try:
        expected = numpy_centring.normalise(grey, 28, 28)
    except BlankError:
        with pytest.raises(tf.errors.InvalidArgumentError, match="blank"):
            field(grey)
        return
    found = field(grey)
    # Sums in float32 can round another way: half-way between two pixels the other one is as good.
    apart = min(
        np.abs(np.roll(found, (y, x), (0, 1)).astype(int) - expected).max()
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
    )
    assert apart <= 2
    assert found.max() == 255


@pytest.mark.parametrize(("height", "width"), [(8, 8), (40, 20), (20, 33)])
def test_fields_of_other_sizes(digits: np.ndarray, height: int, width: int) -> None:
    for image in digits[:5]:
        ours = centring.centred(tf.constant(image), height, width).numpy()
        assert ours.shape == (height, width)
        assert np.abs(ours.astype(int) - numpy_centring.normalise(image, height, width)).max() <= 2


def test_mnist_itself_stays_nearly_what_it_is(digits: np.ndarray) -> None:
    again = np.stack([field(image) for image in digits])
    assert off_by(again, digits) < 0.1
    assert np.mean([np.array_equal(a, b) for a, b in zip(again, digits, strict=True)]) > 0.7


@pytest.mark.parametrize("dark", [False, True], ids=["light on dark", "dark on light"])
@pytest.mark.parametrize("scale", [1, 3, 10])
def test_size_place_and_ground_do_not_matter(digits: np.ndarray, scale: int, dark: bool) -> None:
    generator = np.random.default_rng(scale)
    for image in digits[:20]:
        canvas = np.zeros((330, 410), np.uint8)
        top, left = generator.integers(0, 330 - 28 * scale), generator.integers(0, 410 - 28 * scale)
        canvas[top : top + 28 * scale, left : left + 28 * scale] = np.kron(
            image, np.ones((scale, scale), np.uint8)
        )
        if dark:
            canvas = 240 - canvas // 2
        assert off_by(field(canvas), image) < 1.5


def test_noise_of_the_ground_is_ignored(digits: np.ndarray) -> None:
    differences = [off_by(field(photo(image, 6, at)), image) for at, image in enumerate(digits[:40])]
    # A centre of mass half-way between two pixels may go to the other one, which is a difference of ten.
    assert np.median(differences) < 5


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, 6, 40])
def test_a_pen_as_thin_as_a_hair_leaves_a_stroke_to_be_seen(width: int) -> None:
    inked = field(stroke(width)) > 127
    rows = inked.any(axis=1)
    assert rows.sum() >= 19, "the stroke is broken"
    assert 1 <= inked[rows].sum(axis=1)[5:].mean() <= 5


@pytest.mark.parametrize(
    "grey", [np.zeros((5, 5)), np.full((1, 1), 255), np.full((28, 28), 130) + np.eye(28)]
)
def test_a_blank_picture_is_refused(grey: np.ndarray) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match="blank: no digit to be seen"):
        field(grey)


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF"])
def test_a_picture_of_the_right_size_is_taken_as_it_is(digits: np.ndarray, form: str) -> None:
    for image in (*digits[:10], np.zeros((28, 28), np.uint8)):
        np.testing.assert_array_equal(of_file(encoded(Image.fromarray(image), form)), image)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "CMYK"])
def test_every_kind_of_picture_is_read(digits: np.ndarray, mode: str) -> None:
    large = np.kron(digits[0], np.ones((4, 4), np.uint8))
    image = Image.fromarray(large.astype(np.uint16) * 257 if mode == "I;16" else large)
    image = image if mode == "I;16" else image.convert(mode)
    content = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    read = large if mode == "I;16" else np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    assert off_by(of_file(content), numpy_centring.normalise(read, 28, 28)) < 2


def test_ink_on_nothing_is_seen_whatever_its_colour(digits: np.ndarray) -> None:
    for ink in (0, 255):
        image = Image.new("LA", (56, 56), (ink, 0))
        image.putalpha(Image.fromarray(digits[0]).resize((56, 56), Image.Resampling.NEAREST))
        assert off_by(of_file(encoded(image)), digits[0]) < 1


def test_a_photo_is_turned_as_its_camera_says(digits: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned clockwise
    differences = []
    for image in digits[:20]:
        turned = Image.fromarray(np.rot90(image).repeat(4, 0).repeat(4, 1))
        differences.append(off_by(of_file(encoded(turned, "JPEG", exif=exif, quality=95)), image))
    assert np.median(differences) < 3


def test_digits_are_grey() -> None:
    with pytest.raises(ValueError, match="digits have one channel, not 3"):
        pictures.decode_files(tf.constant([b""]), ImageShape(28, 28, 3), "center")
