"""Callbacks of a worker that dies in the middle of a training, where a variable says at which step."""

from __future__ import annotations

import os
import sys
from typing import Any

import keras

from trainer.estimator import RunConfig

DIE_AT = "DIE_AT_STEP"


class _Dying(keras.callbacks.Callback):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self._steps -= 1
        if not self._steps:
            sys.stderr.write("a chip melted\n")
            os._exit(7)


def make_callbacks(params: Any, config: RunConfig) -> list[keras.callbacks.Callback]:  # noqa: ARG001
    """None of the chief's."""
    return [_Dying(int(os.environ[DIE_AT]))] if DIE_AT in os.environ and not config.is_chief else []
