"""The two phases of a training that fine-tunes a base: what moves in which, and a killed one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training_data import Dataset
from trainer import batches
from trainer.checkpoints import Store
from trainer.estimator import RunConfig
from trainer.features import ImageShape
from trainer.fit import Splits
from trainer.phases import HEAD, Phases
from trainer.recipes import Params, resolve
from trainer.user_functions import UserFunctions

Snapshot = dict[str, np.ndarray]


class Watched(keras.callbacks.Callback):
    """What the base holds before and after each phase, and how fast that learned; kills a run in one."""

    def __init__(self, network: keras.Model, killed_in: int | None) -> None:
        super().__init__()
        self._network, self._killed_in = network, killed_in
        self.base: list[Snapshot] = []
        self.rates: list[float] = []
        self.measured: dict[str, Any] = {}

    def look(self) -> Snapshot:
        base = next(layer for layer in self._network.layers if isinstance(layer, keras.Model))
        return {
            f"{layer.name}/{variable.name}": variable.numpy()
            for layer in base.layers
            for variable in layer.variables
        }

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self.base.append(self.look())

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        if batch == 1 and self._killed_in == len(self.base) // 2:
            raise KeyboardInterrupt

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self.base.append(self.look())
        self.rates.append(float(self.model.optimizer.learning_rate))


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Params:
    """The recipe on a base of two convolutions, with a normalisation between."""
    keras.utils.set_random_seed(1)
    images = keras.Input((20, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="conv1")(images)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu", name="conv2")(x)
    path = tmp_path_factory.mktemp("base") / "base.keras"
    keras.Model(images, x, name="small").save(path)
    return resolve(
        "retrain", base=str(path), base_input="unit", precision="float32", flip=False, mirror=False,
        schedule="constant", epochs=2, fine_tune=2, fine_tune_epochs=2, fine_tune_learning_rate=0.003,
    )  # fmt: skip


@pytest.fixture
def run(chosen: Params, stripes: Dataset, tmp_path: Path) -> Callable[[int | None], Watched]:
    """A run of the training; one that is killed can be taken up by the next."""

    def run(killed_in: int | None) -> Watched:
        functions = UserFunctions()
        config = RunConfig(model_dir=str(tmp_path / "run"), save_checkpoints_steps=1)
        shape = ImageShape(*stripes.images.shape[1:], 1)
        made, traced = functions.build(chosen, shape, 7, 1, config)
        assert made.given_network is not None
        watched = Watched(made.given_network, killed_in)
        split = batches.read_split(stripes.patterns, 1 << 30)
        splits = Splits(split, split, stripes.transform)
        strategy = tf.distribute.get_strategy()
        phases = Phases(functions, traced, chosen, splits, config, strategy, 7, [watched])
        stores = [Store(str(tmp_path / "run" / name), f"one{name}", every_steps=1) for name in ("", HEAD)]
        with contextlib.suppress(KeyboardInterrupt):
            watched.measured = phases.run(made, None, *stores)
        return watched

    return run


def moved(before: Snapshot, after: Snapshot) -> set[str]:
    return {name for name in before if not np.array_equal(before[name], after[name])}


@pytest.mark.slow
def test_the_base_stays_in_the_first_phase_and_its_last_layers_move_in_the_second(
    run: Callable[[int | None], Watched],
) -> None:
    killed = run(1)
    before, headed, begun = killed.base
    assert moved(before, headed) == moved(headed, begun) == set()
    assert killed.rates == pytest.approx([0.01])
    assert not killed.measured

    # Killed in the second phase, it does not repeat the first.
    second = run(None)
    taken_up, tuned = second.base
    assert (second.measured["resumed_at_step"], second.measured["steps"]) == (2, 4)
    assert HEAD not in second.measured
    # `norm` is the second layer from the end: of it neither scale nor mean moves.
    for earlier in (begun, taken_up):
        assert moved(earlier, tuned) == {"conv2/kernel", "conv2/bias"}
    assert second.rates == pytest.approx([0.003])
    # What is exported is the network as the second phase left it.
    assert not moved(tuned, second.look())
