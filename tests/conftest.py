"""Real digits for every test that wants them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.image_example_gen.sources import idx

TINY_TRAIN, TINY_TEST = 600, 200


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
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of a uint8 array."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
