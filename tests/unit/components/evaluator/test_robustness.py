"""Corrupted digits: changed as they should be, always in the same way, whatever their size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.evaluator import robustness
from components.evaluator.robustness import CORRUPTIONS, Images
from components.image_example_gen.sources import idx


@pytest.fixture(scope="module")
def digits(mnist_dir: Path) -> Images:
    return next(idx.read_images(mnist_dir / "t10k-images-idx3-ubyte", 40))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_changes_more_and_the_same_again(name: str, digits: Images) -> None:
    change, strengths = CORRUPTIONS[name]
    before = digits.copy()
    changed = [change(digits, strength) for strength in strengths]
    distances = [np.abs(images.astype(int) - digits).mean() for images in changed]
    assert 0 < distances[0] < distances[1] < distances[2]
    assert all(images.shape == digits.shape and images.dtype == np.uint8 for images in changed)
    np.testing.assert_array_equal(changed[1], change(digits, strengths[1]))
    np.testing.assert_array_equal(digits, before)


@pytest.mark.parametrize("size", [(8, 8), (20, 33), (56, 56)])
def test_other_sizes_go_through(size: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, *size), np.uint8)
    found = list(robustness.corrupted(images))
    assert [(name, severity) for name, severity, _ in found] == [
        (name, severity) for name in CORRUPTIONS for severity in (1, 2, 3)
    ]
    assert all(changed.shape == images.shape for _, _, changed in found)


def test_a_point_goes_where_it_should() -> None:
    image = np.zeros((4, 28, 28), np.uint8)
    image[:, 14, 14] = 255
    moved = robustness.shifted(image, 2)
    assert [tuple(np.argwhere(one)[0]) for one in moved] == [(16, 14), (12, 14), (14, 16), (14, 12)]
    assert robustness.thinner(image, 1.0).max() == 0
    assert (robustness.thicker(image, 1.0) > 0).sum() == 4 * 5
    blurred = robustness.blurred(image, 1.0)
    # The middle of a Gaussian of deviation 1, cut at 3: 1 / (2 pi).
    assert blurred[0, 14, 14] == pytest.approx(255 / (2 * np.pi), abs=1)
    assert blurred[0].sum() == pytest.approx(255, rel=0.1)
    assert robustness.noisy(image, 0.2)[:, :10].std() > 10


def test_a_line_turns_by_the_angle() -> None:
    image = np.zeros((2, 29, 29), np.uint8)
    image[:, 14, 4:25] = 255
    for turned, sign in zip(robustness.rotated(image, 30), (1, -1), strict=True):
        rows, columns = np.nonzero(turned > 100)
        slope = np.polyfit(columns, rows, 1)[0]
        assert sign * slope == pytest.approx(np.tan(np.deg2rad(30)), abs=0.05)


def test_thinner_has_less_ink_and_thicker_more(digits: Images) -> None:
    ink = digits.mean()
    assert robustness.thinner(digits, 0.7).mean() < ink < robustness.thicker(digits, 0.5).mean()
