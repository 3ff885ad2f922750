"""Free memory is the system's again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime import memory

MB = 1 << 20
# Counts the heaps of 64 threads that all live at once, in glibc's own words.
HEAPS = """
import ctypes, sys, threading
from pipeline.runtime import memory
if sys.argv[1] == "few":
    memory.few_arenas()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(64)
def work():
    together.wait()
    libc.malloc(5000)  # without Python's lock
    together.wait()
threads = [threading.Thread(target=work) for _ in range(64)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, out)
libc.fclose(out)
"""


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_garbage_below_something_that_is_kept_goes_back_to_the_system() -> None:
    memory.give_back()
    before = anonymous_bytes()
    garbage: list[object] = [bytes(800) for _ in range(200_000)]
    kept = [
        bytes(800) for _ in range(1000)
    ]  # lies above, so that free memory is not at the end of the heap
    garbage.append(garbage)
    assert anonymous_bytes() - before > 140 * MB

    del garbage
    assert anonymous_bytes() - before > 140 * MB
    memory.give_back()

    assert anonymous_bytes() - before < 30 * MB
    assert len(kept) == 1000


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_many_threads_share_one_heap_for_each_core() -> None:
    def heaps(how: str) -> int:
        environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
        command = [sys.executable, "-c", HEAPS, how]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.count("<heap nr=")

    cores = len(os.sched_getaffinity(0))
    assert heaps("few") <= cores < heaps("many")
