"""A Keras callback that lets a killed run be taken up again."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from trainer import devices
from trainer.callbacks.best_weights import BestWeights
from trainer.callbacks.progress import Progress
from trainer.checkpoints import Checkpoint, Store


class Backup(keras.callbacks.Callback):
    """Puts a checkpoint's state into a model, and saves checkpoints while it trains.

    The state is all that decides how training goes on: the variables of network (random generators
    included) and optimizer, the selected weights, and what was measured. The order of the examples follows
    from the step.
    """

    def __init__(
        self,
        store: Store,
        checkpoint: Checkpoint | None,
        progress: Progress,
        best: BestWeights,
    ) -> None:
        """Make the callback.

        Args:
            store: keeps the checkpoints.
            checkpoint: of the run to go on from; None: there is none.
            progress: knows the step; must come before this callback.
            best: has the best weights so far.
        """
        super().__init__()
        self._store, self._checkpoint = store, checkpoint
        self._progress, self._best = progress, best
        measured = checkpoint.progress if checkpoint else {}
        self._earlier_history: dict[str, list[float]] = measured.get("history", {})
        self._earlier_seconds: float = measured.get("seconds", 0.0)

    @property
    def history(self) -> dict[str, list[float]]:
        """Keras's history, of the whole run."""
        ours = self.model.history.history
        return {name: self._earlier_history.get(name, []) + list(map(float, ours[name])) for name in ours}

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those of the killed run included."""
        return self._earlier_seconds + self._progress.seconds

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Restore."""
        if self._checkpoint is None:
            return
        variables = self.model.state()
        arrays = self._checkpoint.arrays
        for variable, value in zip(variables, arrays[: len(variables)], strict=True):
            variable.assign(value)
        self._best.restore(arrays[len(variables) :], self._checkpoint.progress["selection"])
        self._checkpoint = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Save, if it is time; several workers, which do it together, know that by the steps alone."""
        if (
            (devices.worker_count() == 1 or self._store.counts_steps)
            and not self.model.steps_done
            and self._store.due(self._progress.step)
        ):
            self._save()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Save, where several workers have no other time in common, and when the training is over."""
        together = devices.worker_count() > 1 and not self._store.counts_steps
        if together or self.model.stop_training:
            self._save()

    def _save(self) -> None:
        measured = {"history": self.history, "seconds": self.seconds, "selection": self._best.state}
        # Reading a variable of several workers takes all of them.
        arrays = [np.asarray(variable) for variable in self.model.state()]
        if devices.is_chief():
            names = self.model.state_names()
            self._store.save(self._progress.step, [*arrays, *self._best.weights], measured, names)
