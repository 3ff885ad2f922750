"""The C library's memory: what is free is not kept for a later malloc, but the system's again."""

from __future__ import annotations

import ctypes
import gc
import os

_ARENA_MAX = -8  # glibc's M_ARENA_MAX
_ARENAS = "MALLOC_ARENA_MAX"  # glibc's variable of the same


def few_arenas() -> None:
    """One heap for each core, in this process and those below it, unless the environment says how many.

    glibc makes eight for each core, and TensorFlow and Beam have dozens of threads: what one heap has free
    is of no use to a thread of another. Call it before there are threads.
    """
    if _ARENAS in os.environ:
        return
    cores = len(os.sched_getaffinity(0))
    os.environ[_ARENAS] = str(cores)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_ARENA_MAX, cores)


def give_back() -> None:
    """Collect garbage, and return what is free to the system.

    After a node that made millions of small objects this is hundreds of megabytes, which the nodes after it
    would not use again: they ask for other sizes. Between two nodes it takes some milliseconds.
    """
    import pyarrow  # not for the commands that only look

    gc.collect()
    pyarrow.default_memory_pool().release_unused()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's
        libc.malloc_trim(0)
