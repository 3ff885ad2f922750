"""GPUs for the Trainer alone: it gets a process of its own, all other nodes see none.

TensorFlow takes a GPU's memory when it first computes there and never lets it go before the process
ends, so one process cannot both hide the GPUs and train on them. The driver reads what it may see once,
when TensorFlow first asks which GPUs there are: a command hides them before it loads TensorFlow.
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
_DEVICES = Path("/dev")


def gpus_present() -> bool:
    """Whether there is an NVIDIA GPU that this process may use; asks the driver, not TensorFlow."""
    allowed = _hidden[0] if _hidden else os.environ.get(VISIBLE_DEVICES)
    return allowed not in ("", _NONE_VISIBLE) and any(_DEVICES.glob("nvidia[0-9]*"))


def hide_gpus() -> None:
    """Hide the GPUs from this process and those that it starts, but for `in_new_process`."""
    _hidden.append(os.environ.get(VISIBLE_DEVICES))
    os.environ[VISIBLE_DEVICES] = _NONE_VISIBLE


@contextmanager
def gpus_hidden(hide: bool) -> Iterator[None]:
    """Hide the GPUs from this process while the context lasts, if `hide`."""
    if hide:
        hide_gpus()
    try:
        yield
    finally:
        if hide:
            _restore(_hidden.pop())


_hidden: list[str | None] = []  # what was visible, each time before it was hidden


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
    (result,) = call_together([functools.partial(_seeing, _hidden[0] if _hidden else None, call)])
    return result


def _seeing(visible: str | None, call: Callable[[], Any]) -> Any:
    _restore(visible)
    return call()
