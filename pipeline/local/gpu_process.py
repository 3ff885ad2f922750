"""GPUs for Trainer and Tuner alone: they get a process of their own, all other nodes see none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pipeline.runtime import gpus
from trainer.processes import call_together


def in_new_process(call: Callable[[], Any]) -> Any:
    """Call a picklable function in a fresh process that sees the GPUs; its log records come here.

    Raises:
        ProcessError: with the message of the exception raised there, or how the process died.
    """
    (result,) = call_together([functools.partial(_seeing, gpus.given(), call)])
    return result


def _seeing(devices: str | None, call: Callable[[], Any]) -> Any:
    gpus.show(devices)
    return call()
