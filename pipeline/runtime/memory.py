"""The C library's memory: what is free is not kept for a later malloc, but the system's again."""

from __future__ import annotations

import ctypes
import gc

import pyarrow


def give_back() -> None:
    """Collect garbage, and return what is free to the system.

    After a node that made millions of small objects this is hundreds of megabytes, which the nodes after it
    would not use again: they ask for other sizes. Between two nodes it takes some milliseconds.
    """
    gc.collect()
    pyarrow.default_memory_pool().release_unused()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc's
        libc.malloc_trim(0)
