"""Runs a command that ends when the thread that started it ends, however that comes about.

Its own process would go on after a run that was killed, or replaced by the one that cleans up after it.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def tie() -> None:
    """Let this process end with the thread that started it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    tie()
    os.execvp(sys.argv[1], sys.argv[1:])
