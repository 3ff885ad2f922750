"""GPUs for the Trainer alone: it gets a process of its own, all other nodes see none.

TensorFlow takes a GPU's memory when it first looks at it and never lets it go before the process
ends, so one process cannot both hide the GPUs and train on them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_NONE_VISIBLE = "-1"


class ChildError(Exception):
    """What went wrong in the other process: its message, without its traceback."""


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
        ChildError: with the message of the exception raised there, or how the process died.
    """
    context = multiprocessing.get_context("spawn")
    records = context.Queue()
    listener = QueueListener(records, _ToLoggers())
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(
        target=_main, args=(call, sender, records, _hidden[-1] if _hidden else None), daemon=True
    )
    listener.start()
    try:
        child.start()
        sender.close()
        try:
            ok, value = receiver.recv()
        except EOFError:
            child.join()
            raise ChildError(f"its process ended without a word (exit code {child.exitcode})") from None
        child.join()
    finally:
        if child.is_alive():
            child.terminate()
        listener.stop()
    if not ok:
        raise ChildError(value)
    return value


def _main(call: Callable[[], Any], sender: Connection, records: Any, visible: str | None) -> None:
    _restore(visible)
    root = logging.getLogger()
    root.handlers[:] = [QueueHandler(records)]
    root.setLevel(logging.INFO)
    try:
        sender.send((True, call()))
    except Exception as error:
        logging.error("%s", traceback.format_exc())
        sender.send((False, str(error) or type(error).__name__))


class _ToLoggers(logging.Handler):
    """Hands records of the other process to the loggers of the same names here."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(record.name).handle(record)
