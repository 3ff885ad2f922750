"""A model that reads digits, trained here in seconds, on a server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.image_example_gen.sources import idx
from tests.integration.serving.model_server import Served, running
from tests.training_data import write_dataset
from trainer.train import run_fn

VERSION = 41
EXAMPLES, STEPS = 8_000, 250


@pytest.fixture(scope="session")
def served(mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The trainer's own model of real digits, served."""
    folder = tmp_path_factory.mktemp("served")
    images = next(idx.read_images(mnist_dir / "train-images-idx3-ubyte", EXAMPLES))
    labels = next(idx.read_labels(mnist_dir / "train-labels-idx1-ubyte", EXAMPLES))
    dataset = write_dataset(folder, images, labels)
    run_fn(dataset.fn_args(folder / "output", train_steps=STEPS, batch_size=64, precision="float32"))
    versions = folder / "mnist"
    versions.mkdir()
    (folder / "output" / "Format-Serving").rename(versions / str(VERSION))
    with running(versions, folder) as server:
        yield Served(server, VERSION)
