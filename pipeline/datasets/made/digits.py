"""`digits-8` and `emnist-like`: digits in other forms than MNIST's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.image_example_gen.sources import idx
from pipeline.datasets.made import idx_files

_BATCH = 10_000
_LEVELS = 16  # of scikit-learn's digits


def make_digits_8(folder: Path) -> Mapping[str, Any]:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, as one pair of IDX files.

    They are the test part of the UCI data set Optical Recognition of Handwritten Digits. Levels 0 … 16
    become 0 … 255. There is no test split: the pipeline cuts one off.
    """
    from sklearn import datasets  # takes a second

    found = datasets.load_digits()
    images = np.rint(found.images * (255 / _LEVELS)).astype(np.uint8)
    idx_files.write(folder / "train-images-idx3-ubyte", images.shape, [images])
    labels = found.target.astype(np.uint8)
    idx_files.write(folder / "train-labels-idx1-ubyte", labels.shape, [labels])
    return {"images": len(images)}


def make_emnist_like(folder: Path, mnist: Path) -> Mapping[str, Any]:
    """MNIST as EMNIST's files have their images: transposed, with EMNIST's names and labels from 1.

    EMNIST's own letters are labelled from 1 to 26. The file of the labels' characters is there too.
    """
    files = idx.find_files(mnist)
    sizes = {}
    for split, images, labels in (
        ("train", files.train_images, files.train_labels),
        ("test", files.test_images, files.test_labels),
    ):
        stem = folder / f"emnist-like-{split}"
        with idx.IdxReader(images, 3) as reader:
            count, height, width = reader.shape
        turned = (some.transpose(0, 2, 1) for some in idx.read_images(images, _BATCH))
        idx_files.write(Path(f"{stem}-images-idx3-ubyte"), (count, width, height), turned)
        from_1 = (some + np.uint8(1) for some in idx.read_labels(labels, _BATCH))
        idx_files.write(Path(f"{stem}-labels-idx1-ubyte"), (count,), from_1)
        sizes[split] = count
    rows = [f"{digit + 1} {ord(str(digit))}" for digit in range(10)]
    (folder / "emnist-like-mapping.txt").write_text("\n".join(rows) + "\n")
    return sizes
