"""The images, labels and first weights that the real Estimator and ours both begin with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

IMAGES = 90  # so that the last batch of 20 is uneven

_SHAPES: Mapping[str, tuple[int, ...]] = {
    "conv2d/kernel": (5, 5, 1, 32),
    "conv2d/bias": (32,),
    "conv2d_1/kernel": (5, 5, 32, 64),
    "conv2d_1/bias": (64,),
    "dense/kernel": (3136, 1024),
    "dense/bias": (1024,),
    "dense_1/kernel": (1024, 10),
    "dense_1/bias": (10,),
}


def make() -> dict[str, np.ndarray]:
    """Blobs whose place tells their class, noise over them, and Glorot's uniform weights."""
    random = np.random.default_rng(18)
    labels = random.integers(0, 10, IMAGES)
    images = random.uniform(0, 0.3, (IMAGES, 28, 28, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 4)
        image[row * 8 + 2 : row * 8 + 8, column * 7 : column * 7 + 6] += 0.7
    made: dict[str, np.ndarray] = {"image": images, "label": labels.astype(np.int64)}
    for name, shape in _SHAPES.items():
        if len(shape) == 1:
            made[name] = np.zeros(shape, np.float32)
            continue
        field = int(np.prod(shape[:-2]))
        reach = np.sqrt(6 / (field * (shape[-2] + shape[-1])))
        made[name] = random.uniform(-reach, reach, shape).astype(np.float32)
    return made
