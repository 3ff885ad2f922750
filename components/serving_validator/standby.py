"""A process that is forked off a run early, and becomes the model server when the candidate is there.

What the run has imported is there already: the server starts without the seconds of CPU that importing
TensorFlow takes, and shares that memory with the run.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from components.serving_validator import tied

_waiting: list[Standby] = []


class Standby:
    """The process: it waits for the server's options; then it is asked as a `subprocess.Popen` is."""

    def __init__(self) -> None:
        """Fork."""
        context = multiprocessing.get_context("fork")
        theirs, self._options = context.Pipe(duplex=False)
        self._process = context.Process(target=_wait, args=(theirs, self._options), daemon=True)
        self._process.start()
        theirs.close()

    def serve(self, options: Sequence[str], log: Path) -> None:
        """Become `python -m serving`, whose output goes to `log`."""
        self._options.send((list(options), str(log)))
        self._options.close()

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.exitcode

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> None:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: when so many seconds have passed.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("python -m serving", timeout or 0)


@contextmanager
def process() -> Iterator[None]:
    """Have one for the time of a run, at whose end it ends.

    Only while TensorFlow has done nothing in this process but be imported: no fork survives its threads.
    """
    try:
        standby = Standby()
    except OSError:  # no room for another process now; the server is started when it is needed
        yield
        return
    _waiting.append(standby)
    try:
        yield
    finally:
        _waiting.clear()
        standby.kill()
        standby.wait()


def take() -> Standby | None:
    """The one that waits; None where there is none, or it was ended."""
    standby = _waiting.pop() if _waiting else None
    return standby if standby is not None and standby.poll() is None else None


def _wait(options: Connection, kept_by_the_run: Connection) -> None:
    # Ctrl-C on the terminal is the run's business, which then ends this process.
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    tied.tie()
    kept_by_the_run.close()
    try:
        arguments, log = options.recv()
    except EOFError:  # the run was gone before this was tied to it
        return
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    logging.getLogger().handlers.clear()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    sys.argv[1:] = arguments
    runpy.run_module("serving", run_name="__main__", alter_sys=True)
