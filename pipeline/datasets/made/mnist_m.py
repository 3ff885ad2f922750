"""`mnist-m`: MNIST's digits blended with patches of photos, after the idea of MNIST-M.

Ganin et al., Domain-Adversarial Training of Neural Networks (JMLR 17, 2016): the absolute difference of a
digit and a random patch of a photo. Theirs are of BSDS500; these are of the two photos that scikit-learn
carries, so figures on the two sets are not comparable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.image_example_gen.sources import idx
from pipeline.datasets.made import idx_files

SIDE = 32  # pixels
_BATCH = 2_000


def make(folder: Path, mnist: Path) -> Mapping[str, Any]:
    """Write it as IDX files of rank 4: uint8 [N, 32, 32, 3]."""
    from sklearn import datasets  # takes a second

    photos = [np.asarray(photo, np.uint8) for photo in datasets.load_sample_images().images]
    files = idx.find_files(mnist)
    sizes = {}
    for seed, (split, images, labels) in enumerate(
        (
            ("train", files.train_images, files.train_labels),
            ("t10k", files.test_images, files.test_labels),
        )
    ):
        with idx.IdxReader(images, 3) as reader:
            count = reader.shape[0]
        random = np.random.default_rng(seed)
        idx_files.write(
            folder / f"{split}-images-idx4-ubyte",
            (count, SIDE, SIDE, 3),
            (blended(some, photos, random) for some in idx.read_images(images, _BATCH)),
        )
        idx_files.write(folder / f"{split}-labels-idx1-ubyte", (count,), idx.read_labels(labels, _BATCH))
        sizes[split] = count
    return sizes


def blended(
    digits: NDArray[np.uint8], photos: Sequence[NDArray[np.uint8]], random: np.random.Generator
) -> NDArray[np.uint8]:
    """|patch - digit|, the digit in the middle.

    Args:
        digits: uint8 [n, h, w], not larger than SIDE.
        photos: uint8 [H, W, 3] each.
        random: where the patches are.

    Returns:
        uint8 [n, SIDE, SIDE, 3].
    """
    height, width = digits.shape[1:]
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    around = ((0, 0), (top, SIDE - height - top), (left, SIDE - width - left))
    ink = np.pad(digits, around).astype(np.int16)[..., None]
    patches = np.stack(list(_patches(len(digits), photos, random))).astype(np.int16)
    return np.abs(patches - ink).astype(np.uint8)


def _patches(
    count: int, photos: Sequence[NDArray[np.uint8]], random: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    for _ in range(count):
        photo = photos[int(random.integers(len(photos)))]
        y = random.integers(photo.shape[0] - SIDE + 1)
        x = random.integers(photo.shape[1] - SIDE + 1)
        yield photo[y : y + SIDE, x : x + SIDE]
