"""Keeps the noise of TensorFlow, Beam and TFX off the terminal: it goes to the run's log file."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import BAD_INPUT
from pipeline.runtime import folders

FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"


class _Terminal(io.FileIO):
    """Standard output as it was: a reader that goes away, or a full disk, does not end the work."""

    def write(self, data: Any) -> int:
        """Write, or do nothing."""
        with suppress(OSError):
            return super().write(data) or 0
        return len(data)


@contextmanager
def redirected(path: Path) -> Iterator[TextIO]:
    """Send file descriptors 1 and 2 and all logging to `path`; yields the terminal.

    Descriptors, because TensorFlow's C++ writes to them directly.

    Args:
        path: the log file; its folder is made. Bad input, of which the error says all, leaves neither.

    Yields:
        A text stream on what standard output was before.
    """
    new = not path.exists()
    with folders.made(path.parent):
        try:
            with _redirected(path) as terminal:
                yield terminal
        except Exception as error:
            if new and getattr(error, "exit_code", None) == BAD_INPUT:
                path.unlink(missing_ok=True)
            raise


@contextmanager
def _redirected(path: Path) -> Iterator[TextIO]:
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    file = logging.FileHandler(path)
    file.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [file]
    root.setLevel(logging.INFO)
    terminal = io.TextIOWrapper(
        io.BufferedWriter(_Terminal(os.dup(saved[0]), "w")),
        encoding="utf-8",
        errors="replace",
        line_buffering=True,
    )
    try:
        yield terminal
    finally:
        terminal.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        file.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        os.close(saved[0])
        os.close(saved[1])
