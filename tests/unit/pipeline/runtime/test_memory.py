"""Free memory is the system's again."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: what other tests left free in this one's heap would be filled first.
_SCRIPT = """
from pathlib import Path

from pipeline.runtime import memory


def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


memory.give_back()  # loads what it needs
garbage = [bytes(800) for _ in range(200_000)]
kept = [bytes(800) for _ in range(1000)]  # lies above, so that free memory is not at the end of the heap
garbage.append(garbage)
held = anonymous_bytes()

del garbage
print(held - anonymous_bytes())
memory.give_back()
print(held - anonymous_bytes())
"""
MB = 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_garbage_below_something_that_is_kept_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)

    after_del, after_give_back = (int(line) for line in done.stdout.split())

    assert after_del < 30 * MB
    assert after_give_back > 140 * MB
