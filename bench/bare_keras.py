"""The bare script that `bench.run` compares the pipeline with: a recipe, Keras, arrays in memory.

It does what the pipeline's result needs at the least: read the files, train on 55,000 images, look at
the other 5,000 once, evaluate on the test images. No Beam, no metadata, no export.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from trainer import recipes
from trainer.features import DEFAULT_IMAGE_SHAPE
from trainer.model import build_network
from trainer.optimizers import build_optimizer


def read(folder: Path, images: str, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as float32 [N, 28, 28, 1] in [0, 1] and labels as int64 [N], from two IDX files."""
    pixels = np.frombuffer((folder / images).read_bytes(), np.uint8, offset=16)
    x = pixels.reshape(-1, 28, 28, 1).astype(np.float32) / 255
    y = np.frombuffer((folder / labels).read_bytes(), np.uint8, offset=8).astype(np.int64)
    return x, y


def main() -> None:
    """Train and evaluate; prints the test accuracy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of MNIST's four IDX files")
    parser.add_argument("--recipe", default="fast")
    args = parser.parse_args()
    x, y = read(args.data_dir, "train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    x_test, y_test = read(args.data_dir, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    held_out = len(x) // 12
    params = recipes.resolve(args.recipe)
    steps = params.steps(len(x) - held_out)
    keras.utils.set_random_seed(params.seed)
    network = build_network(params, DEFAULT_IMAGE_SHAPE, 10)
    network.compile(
        optimizer=build_optimizer(params, steps),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    per_epoch = -(-(len(x) - held_out) // params.batch_size)
    network.fit(
        x[held_out:],
        y[held_out:],
        batch_size=params.batch_size,
        epochs=max(1, round(steps / per_epoch)),
        verbose=0,
    )
    network.evaluate(x[:held_out], y[:held_out], batch_size=1000, verbose=0)
    _, accuracy = network.evaluate(x_test, y_test, batch_size=1000, verbose=0)
    print(f"{accuracy:.4f}")


if __name__ == "__main__":
    main()
