"""Images for every test that wants them: real digits, which are fetched, and made ones, which are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from components.image_example_gen.sources import idx

# A machine that does other things at the same time is slow; that is no fault of what is tested.
settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")

TINY_TRAIN, TINY_TEST = 600, 200
MADE_SIDE = 8


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs fetched data, so that `make check` runs without any."""
    for item in items:
        if "mnist_dir" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.data)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The verified MNIST files."""
    folder = Path(__file__).parent.parent / "var" / "data" / "mnist"
    try:
        idx.find_files(folder)
    except idx.IdxError as error:
        pytest.fail(f"{error}: run make data")
    return folder


@pytest.fixture(scope="session")
def tiny_mnist_dir(mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of IDX files: the first 600 training and the first 200 test digits."""
    folder = tmp_path_factory.mktemp("tiny-mnist")
    for split, count in (("train", TINY_TRAIN), ("t10k", TINY_TEST)):
        images = next(idx.read_images(mnist_dir / f"{split}-images-idx3-ubyte", count))
        labels = next(idx.read_labels(mnist_dir / f"{split}-labels-idx1-ubyte", count))
        write_pair(folder, split, images, labels)
    return folder


@pytest.fixture(scope="session")
def made_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of IDX files with 600 training and 200 test images of 8 x 8 pixels, no two the same.

    An image of class k is noise below 96 with the pixels k and k + 10, k + 20, ... bright: a network learns
    the ten classes in some steps.
    """
    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    for split, count in (("train", TINY_TRAIN), ("t10k", TINY_TEST)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = random.integers(0, 96, (count, MADE_SIDE * MADE_SIDE), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[label::10] = 255
        write_pair(folder, split, images.reshape(count, MADE_SIDE, MADE_SIDE), labels)
    return folder


def write_pair(folder: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write uint8 images and labels as IDX files named as MNIST's, `split` being `train` or `t10k`."""
    (folder / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of a uint8 array."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
