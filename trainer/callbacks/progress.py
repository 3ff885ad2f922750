"""What a training run tells while it lasts, and what stops it early: Keras callbacks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import keras

_LOG = logging.getLogger("trainer.progress")
_INTERVAL_S = 0.5


def in_words(metrics: Mapping[str, float]) -> str:
    """`loss 0.1234, accuracy 0.9876`."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


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

    def __init__(
        self,
        steps: int,
        steps_per_epoch: int,
        batch_size: int,
        read_each_step: bool,
        first_step: int = 0,
        log_steps: int | None = None,
    ) -> None:
        """Make the callback.

        Args:
            steps: of the whole run.
            steps_per_epoch: to tell the epochs.
            batch_size: images per step.
            read_each_step: look at the loss after each step, not just when it is logged. Free on a CPU; on
                a GPU it would make each step wait for the one before.
            first_step: steps that a run before this one made; Keras is led through them without work.
            log_steps: steps between two lines; None: two lines a second.
        """
        super().__init__()
        self._steps = steps
        self._epochs = math.ceil(steps / steps_per_epoch)
        self._batch_size = batch_size
        self._read_each_step = read_each_step
        self._first_step = first_step
        self._log_steps = log_steps
        self._epoch = first_step // steps_per_epoch
        self.step = self._epoch * steps_per_epoch  # done so far
        self._began_at = self._first_step_at = self._logged_at = 0.0
        self._evaluating_since = 0.0
        self.images_per_s = 0.0  # without the first step, which includes the compilation

    @property
    def seconds(self) -> float:
        """Seconds since training began, without those of evaluations."""
        return time.perf_counter() - self._began_at

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Start the clock."""
        self._began_at = time.perf_counter()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Stop the clock."""
        self._evaluating_since = time.perf_counter()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Let the clock go on."""
        evaluated = time.perf_counter() - self._evaluating_since
        self._began_at += evaluated
        self._first_step_at += evaluated

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Count epochs from one."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Log, as often as was asked for, and after the last step."""
        self.step += 1
        if self.step <= self._first_step:
            # The run before this one may have been killed after its last step.
            self.model.stop_training = self.step >= self._steps
            return
        now = time.perf_counter()
        if self.step == self._first_step + 1:
            self._first_step_at = now
        last = self.step >= self._steps
        log = last or self._due(now)
        if log or self._read_each_step:
            loss = float((logs or {})["loss"])
            if not math.isfinite(loss):
                raise NonFiniteLossError(self.step, loss)
        if log:
            self._log(now, logs or {})
        if last:
            self.model.stop_training = True

    def _due(self, now: float) -> bool:
        if self._log_steps:
            return self.step % self._log_steps == 0
        return now - self._logged_at >= _INTERVAL_S

    def _log(self, now: float, logs: dict[str, Any]) -> None:
        self._logged_at = now
        since_first = now - self._first_step_at
        timed_steps = self.step - self._first_step - 1
        self.images_per_s = timed_steps * self._batch_size / since_first if since_first else 0.0
        loss = float(logs["loss"])
        metrics = {name: float(value) for name, value in logs.items() if name != "loss"}
        progress = {
            "step": self.step,
            "steps": self._steps,
            "epoch": self._epoch,
            "epochs": self._epochs,
            "loss": loss,
            "metrics": metrics,
            "images_per_s": self.images_per_s,
        }
        _LOG.info(
            "step %d of %d: %s, %.0f images/s",
            self.step,
            self._steps,
            in_words({"loss": loss} | metrics),
            self.images_per_s,
            extra={"progress": progress},
        )
