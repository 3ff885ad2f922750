"""One process at a time works on a pipeline: the lock that a run and a rollback hold."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError


class BusyError(UserError):
    """Another run of the same pipeline is in progress."""


@contextmanager
def exclusive(pipeline_root: Path) -> Iterator[None]:
    """Hold the pipeline's lock; the system lets it go however the process ends.

    Raises:
        BusyError: when another process holds it.
    """
    pipeline_root.mkdir(parents=True, exist_ok=True)
    with (pipeline_root / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BusyError(
                f"another run of this pipeline is in progress (process {file.read().strip() or '?'}); "
                "wait for it, or use another --root"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
