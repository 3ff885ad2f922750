"""Which GPUs a process may use.

TensorFlow takes a GPU's memory when it first computes there and never lets it go before the process
ends, so one process cannot both hide the GPUs and train on them. The driver reads what it may see once,
when TensorFlow first asks which GPUs there are: a command hides them before it loads TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_NONE_VISIBLE = "-1"
_DEVICES = Path("/dev")
_hidden: list[str | None] = []  # what was visible, each time before it was hidden


def present() -> bool:
    """Whether there is an NVIDIA GPU that a run may use; asks the driver, not TensorFlow."""
    return given() not in ("", _NONE_VISIBLE) and any(_DEVICES.glob("nvidia[0-9]*"))


def given() -> str | None:
    """What this process was told that it may use, before it hid them; None: all."""
    return _hidden[0] if _hidden else os.environ.get(VISIBLE_DEVICES)


def hide() -> None:
    """Hide the GPUs from this process and those that it starts."""
    _hidden.append(os.environ.get(VISIBLE_DEVICES))
    os.environ[VISIBLE_DEVICES] = _NONE_VISIBLE


@contextmanager
def hidden(condition: bool) -> Iterator[None]:
    """Hide the GPUs while the context lasts, if `condition`."""
    if condition:
        hide()
    try:
        yield
    finally:
        if condition:
            show(_hidden.pop())


def show(devices: str | None) -> None:
    """Let this process see these; None: all."""
    if devices is None:
        os.environ.pop(VISIBLE_DEVICES, None)
    else:
        os.environ[VISIBLE_DEVICES] = devices
