"""GPUs for the Trainer alone: it gets a process of its own, all other nodes see none.

TensorFlow takes a GPU's memory when it first looks at it and never lets it go before the process
ends, so one process cannot both hide the GPUs and train on them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.processes import call_together

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_NONE_VISIBLE = "-1"


def gpus_present() -> bool:
    """Whether there is an NVIDIA GPU that this process may use; asks the driver, not TensorFlow."""
    allowed = os.environ.get(VISIBLE_DEVICES)
    return allowed not in ("", _NONE_VISIBLE) and any(Path("/dev").glob("nvidia[0-9]*"))


@contextmanager
def gpus_hidden(hide: bool) -> Iterator[None]:
    """Hide the GPUs from this process while the context lasts, if `hide`."""
    before = os.environ.get(VISIBLE_DEVICES)
    if hide:
        os.environ[VISIBLE_DEVICES] = _NONE_VISIBLE
        # What in_new_process gives back to the Trainer.
        _hidden.append(before)
    try:
        yield
    finally:
        if hide:
            _restore(_hidden.pop())


_hidden: list[str | None] = []


def _restore(value: str | None) -> None:
    if value is None:
        os.environ.pop(VISIBLE_DEVICES, None)
    else:
        os.environ[VISIBLE_DEVICES] = value


def in_new_process(call: Callable[[], Any]) -> Any:
    """Call a picklable function in a fresh process that sees the GPUs; its log records come here.

    Raises:
        ProcessError: with the message of the exception raised there, or how the process died.
    """
    (result,) = call_together([functools.partial(_seeing, _hidden[-1] if _hidden else None, call)])
    return result


def _seeing(visible: str | None, call: Callable[[], Any]) -> Any:
    _restore(visible)
    return call()
