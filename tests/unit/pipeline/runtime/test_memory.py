"""Free memory is the system's again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.runtime import memory

MB = 1 << 20


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_garbage_below_something_that_is_kept_goes_back_to_the_system() -> None:
    garbage: list[object] = [bytes(800) for _ in range(200_000)]
    # Lies above, so that free memory is not at the end of the heap.
    kept = [bytes(800) for _ in range(1000)]
    garbage.append(garbage)
    held = anonymous_bytes()

    del garbage
    assert held - anonymous_bytes() < 30 * MB
    memory.give_back()

    assert held - anonymous_bytes() > 140 * MB
    assert len(kept) == 1000
