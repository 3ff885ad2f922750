"""An interruption is seen even where Python drops the first one."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# Exceptions raised inside a destructor go no further.
SCRIPT = """
import os, sys, time
from pipeline.local import interruption

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.1)

try:
    with interruption.repeated_interrupts():
        Deaf()
        print("went on", flush=True)
        time.sleep(20)
except KeyboardInterrupt:
    time.sleep(2 * interruption.AGAIN_AFTER_S)
    print("noticed")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_an_interruption_that_a_destructor_swallows_comes_again_and_then_no_more(
    how: signal.Signals,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(int(how))],
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n") == ["went on", "noticed", ""]


def test_a_terminal_that_is_closed_does_not_end_a_run() -> None:
    script = (
        "import os, signal\nfrom pipeline.local import interruption\n"
        # Under nohup it is ignored from the beginning.
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "with interruption.repeated_interrupts():\n    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('went on', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGHUP, "went on\n")
