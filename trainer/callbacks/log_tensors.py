"""What LoggingTensorHook did: chosen tensors of the training step, in the log and in TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.callbacks.progress import Progress, in_words

_LOG = logging.getLogger(__name__)


class LogTensors(keras.callbacks.Callback):
    """Logs some of what a training step returns, each N steps."""

    def __init__(
        self, names: Sequence[str], every_steps: int, progress: Progress, directory: str = ""
    ) -> None:
        """Make the callback.

        Args:
            names: of the values.
            every_steps: steps between two lines.
            progress: knows the step; must come before this callback.
            directory: where TensorBoard's files go; empty: nowhere.
        """
        super().__init__()
        self._names, self._every_steps, self._progress = names, every_steps, progress
        self._writer = tf.summary.create_file_writer(directory) if directory else None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Log, if it is time."""
        step = self._progress.step
        if self.model.steps_done or (step - 1) % self._every_steps:
            return
        values = {name: float((logs or {})[name]) for name in self._names}
        _LOG.info("step %d: %s", step, in_words(values))
        if self._writer:
            with self._writer.as_default():
                for name, value in values.items():
                    tf.summary.scalar(name, value, step=step)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Close the file."""
        if self._writer:
            self._writer.close()
