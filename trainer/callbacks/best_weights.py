"""A Keras callback that keeps the best weights, and stops when they get no better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np


class BestWeights(keras.callbacks.Callback):
    """By accuracy on the validation split alone.

    Keras's EarlyStopping does the same, but cannot be taken up again in the middle of a run.
    """

    def __init__(self, keep_best: bool, patience: int) -> None:
        """Make the callback.

        Args:
            keep_best: put the best weights back at the end.
            patience: stop after so many evaluations that were not better than the best; 0: never.
        """
        super().__init__()
        self._keep_best, self._patience = keep_best, patience
        self.accuracy = -1.0
        self._since_best = 0
        self.confusion: np.ndarray | None = None  # int64 [C, C], of the last evaluation
        self.weights: list[np.ndarray] = []  # the best ones; empty before the first evaluation

    @property
    def state(self) -> dict[str, Any]:
        """What `restore` takes in addition to the weights."""
        return {"best": self.accuracy, "since_best": self._since_best}

    def restore(self, weights: Sequence[np.ndarray], state: Mapping[str, Any]) -> None:
        """Take up where another run was."""
        self.weights = list(weights)
        self.accuracy, self._since_best = state["best"], state["since_best"]

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Compare; here, because averaged weights are in place for the evaluation alone."""
        if self.model.confusion is not None:
            # Several workers add up their counts here, so that all of them must come by.
            self.confusion = self.model.confusion.result().numpy()
        accuracy = (logs or {}).get("accuracy")
        if accuracy is None:
            return  # not every model function reports it; trainer.train refuses keep=best without it
        if float(accuracy) > self.accuracy:
            self.accuracy, self._since_best = float(accuracy), 0
            if self._keep_best:
                self.weights = self.model.network.get_weights()
        else:
            self._since_best += 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Stop, if it is time."""
        if self._patience and self._since_best >= self._patience:
            self.model.stop_training = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Put the best weights back."""
        if self.weights:
            self.model.network.set_weights(self.weights)
