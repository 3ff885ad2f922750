"""What a training run tells while it lasts, and what stops it early: Keras callbacks."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import keras

_LOG = logging.getLogger("trainer.progress")
_INTERVAL_S = 0.5


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite: the weights are worthless."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(
            f"the loss is {loss} at step {step}: likely causes are a learning rate that is too high, "
            "float16 without loss scaling, labels outside the class range, or inputs that are not finite"
        )
        self.step = step


class Progress(keras.callbacks.Callback):
    """Logs to `trainer.progress`; stops after the last step and where the loss is not finite."""

    def __init__(self, steps: int, steps_per_epoch: int, batch_size: int, read_each_step: bool) -> None:
        """Make the callback.

        Args:
            steps: of the whole run.
            steps_per_epoch: to tell the epochs.
            batch_size: images per step.
            read_each_step: look at the loss after each step, not just when it is logged. Free on a CPU; on
                a GPU it would make each step wait for the one before.
        """
        super().__init__()
        self._steps = steps
        self._epochs = math.ceil(steps / steps_per_epoch)
        self._batch_size = batch_size
        self._read_each_step = read_each_step
        self._step = self._epoch = 0
        self._first_step_at = self._logged_at = 0.0
        self.train_seconds = 0.0
        self.images_per_s = 0.0  # without the first step, which includes the compilation

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._began_at = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Count epochs from one."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Log twice a second, and after the last step."""
        self._step += 1
        now = time.perf_counter()
        if self._step == 1:
            self._first_step_at = now
        last = self._step >= self._steps
        log = last or now - self._logged_at >= _INTERVAL_S
        if log or self._read_each_step:
            loss = float((logs or {})["loss"])
            if not math.isfinite(loss):
                raise NonFiniteLossError(self._step, loss)
        if log:
            self._log(now, logs or {})
        if last:
            # Reading the loss has waited for the step.
            self.train_seconds = time.perf_counter() - self._began_at
            self.model.stop_training = True

    def _log(self, now: float, logs: dict[str, Any]) -> None:
        self._logged_at = now
        since_first = now - self._first_step_at
        self.images_per_s = (self._step - 1) * self._batch_size / since_first if since_first else 0.0
        progress = {
            "step": self._step,
            "steps": self._steps,
            "epoch": self._epoch,
            "epochs": self._epochs,
            "loss": float(logs["loss"]),
            "accuracy": float(logs.get("accuracy", math.nan)),
            "images_per_s": self.images_per_s,
        }
        _LOG.info(
            "step %d of %d: loss %.4f, accuracy %.4f, %.0f images/s",
            self._step,
            self._steps,
            progress["loss"],
            progress["accuracy"],
            self.images_per_s,
            extra={"progress": progress},
        )
