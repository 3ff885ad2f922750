"""Ctrl-C and SIGTERM as KeyboardInterrupt, until it is acknowledged."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN_AFTER_S = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def repeated_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread on SIGINT or SIGTERM, and again until `acknowledge`.

    SIGHUP is ignored: a run goes on when the terminal that it was started on is closed.

    Python drops an exception that a signal raises inside a destructor or a callback of C code, and a
    training loop is full of both: a single KeyboardInterrupt may never be seen.
    """
    before = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        acknowledge()
        for number, handler in before.items():
            signal.signal(number, handler)


def pending() -> bool:
    """Whether an interruption has come that nobody has noticed."""
    return _again is not None


def acknowledge() -> None:
    """The interruption has been seen: do not raise it again."""
    global _again
    if _again is not None:
        _again.cancel()
        _again = None


_again: threading.Timer | None = None


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    global _again
    acknowledge()
    # To the main thread: only there a signal also ends a sleep.
    main = threading.main_thread().ident
    _again = threading.Timer(AGAIN_AFTER_S, signal.pthread_kill, (main, number))
    _again.daemon = True
    _again.start()
    raise KeyboardInterrupt
