"""Calls in fresh processes: TensorFlow's devices and workers are fixed for the life of a process."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

_NO_ERROR = re.compile(r"([IW]\d{4} |\d{4}-\d\d-\d\d .*: [IW] )")  # what TensorFlow's C++ parts tell
_ENDING_S = 3.0  # for processes to end by themselves, before they are killed


class ProcessError(Exception):
    """What went wrong in another process: its message, without its traceback."""


@dataclass
class _Child:
    """A process: what it tells (log records, then how its call went), and its standard error."""

    name: str
    process: SpawnProcess
    told: Connection
    errors: Connection
    last_words: str = ""

    def hear_errors(self) -> None:
        """Pass on what it has written to standard error, and remember the last error."""
        while self.errors.poll():
            written = os.read(self.errors.fileno(), 1 << 16)
            if not written:
                self.errors.close()
                return
            os.write(2, written)
            for line in written.decode(errors="replace").splitlines():
                if line.strip() and not _NO_ERROR.match(line):
                    self.last_words = line.strip()

    def how_it_died(self) -> str:
        """One line, for a process that ended before its call did."""
        self.process.join()
        if not self.errors.closed:
            self.hear_errors()
        said = f": {self.last_words}" if self.last_words else ""
        return f"its process ended without a word (exit code {self.process.exitcode}){said}"


def call_together(calls: Sequence[Callable[[], Any]], names: Sequence[str] = ("",)) -> list[Any]:
    """Call picklable functions at the same time, each in a fresh process; their log records come here.

    Where one fails, or this process is interrupted or gone, all are ended.

    Args:
        calls: the functions.
        names: what an error begins with, for each.

    Returns:
        What they returned.

    Raises:
        ProcessError: with the message of the first exception raised there, or how a process died.
    """
    children: list[_Child] = []
    try:
        for call, name in zip(calls, names, strict=True):
            children.append(_start(call, name))
        try:
            results = _results(children)
        except ProcessError:
            # What one of them found, others may have found too, and clean up before they end.
            _let_end(children)
            raise
        _let_end(children)
        return results
    finally:
        for child in children:
            # Not SIGTERM: TensorFlow takes it, where several workers train, and goes on.
            child.process.kill()
        for child in children:
            child.process.join()
            child.told.close()
            child.errors.close()


def _start(call: Callable[[], Any], name: str) -> _Child:
    context = multiprocessing.get_context("spawn")
    told, telling = context.Pipe(duplex=False)
    errors, writing = context.Pipe(duplex=False)
    # Pickled here, and read by `_main`: what the function needs to be imported comes after the rest of it.
    process = context.Process(target=_main, args=(pickle.dumps(call), telling, writing))
    process.start()
    telling.close()
    writing.close()
    return _Child(name, process, told, errors)


def _let_end(children: Sequence[_Child]) -> None:
    ends_at = time.monotonic() + _ENDING_S
    for child in children:
        child.process.join(max(0.0, ends_at - time.monotonic()))


def _results(children: Sequence[_Child]) -> list[Any]:
    running = {child.told: child for child in children}
    results: dict[str, Any] = {}
    while running:
        ready = wait([*running, *(child.errors for child in children if not child.errors.closed)])
        for child in children:
            if child.errors in ready:
                child.hear_errors()
        for child in children:
            if child.told in ready and (failure := _hear(child, running, results)):
                raise ProcessError(f"{child.name}{failure}")
    return [results[child.name] for child in children]


def _hear(child: _Child, running: dict[Connection, _Child], results: dict[str, Any]) -> str:
    """Take one thing that a process has told; what went wrong, "" where nothing did."""
    try:
        told = child.told.recv()
    except EOFError:
        return child.how_it_died()
    if isinstance(told, logging.LogRecord):
        logging.getLogger(told.name).handle(told)
        return ""
    del running[child.told]
    ok, results[child.name] = told
    return "" if ok else str(results[child.name])


class _Telling(QueueHandler):
    """Sends records, one at a time whichever thread they come from."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)  # type: ignore[arg-type]

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send(record)  # type: ignore[attr-defined]


def _main(pickled: bytes, telling: Connection, writing: Connection) -> None:
    # Ctrl-C in a terminal reaches all its processes; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(writing.fileno(), 2)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    handler = _Telling(telling)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    try:
        outcome = (True, pickle.loads(pickled)())
    except Exception as error:
        logging.error("%s", traceback.format_exc())
        outcome = (False, str(error) or type(error).__name__)
    handler.acquire()
    telling.send(outcome)
    handler.release()


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
