"""Processes that are started together end together, whatever ends one of them."""

from __future__ import annotations

import functools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer import processes
from trainer.processes import ProcessError, call_together

pytestmark = pytest.mark.slow
NAMES = ("first: ", "second: ")


def tell(word: str) -> str:
    logging.getLogger("told").info("%s by %d", word, os.getpid())
    return word


def fail(word: str) -> None:
    raise ValueError(word)


def die() -> None:
    sys.stderr.write("memory is full\nW0000 00:00:1795663979.777359   22968 dataset.cc:997] a warning\n")
    os.kill(os.getpid(), signal.SIGKILL)


def wait(folder: Path) -> None:
    # TensorFlow does so where several workers train.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / str(os.getpid())).touch()
    time.sleep(60)


def waiting(folder: Path) -> Iterator[int]:
    """The processes that wait, as soon as there is one, and still run."""
    ends_at = time.monotonic() + 20
    while not any(folder.iterdir()):
        assert time.monotonic() < ends_at
        time.sleep(0.02)
    for file in folder.iterdir():
        if Path("/proc", file.name).exists():
            yield int(file.name)


def test_all_are_called_and_what_they_log_comes_here(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert call_together([functools.partial(tell, word) for word in ("one", "two")], NAMES) == [
        "one",
        "two",
    ]
    said = sorted(record.getMessage() for record in caplog.records if record.name == "told")
    assert [line.split(" by ")[0] for line in said] == ["one", "two"]
    assert not any(line.endswith(f" {os.getpid()}") for line in said)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (functools.partial(fail, "no such file"), r"^second: no such file$"),
        (die, r"^second: its process ended without a word \(exit code -9\): memory is full$"),
    ],
    ids=["raises", "dies"],
)
def test_one_that_fails_ends_the_others(
    call: functools.partial[None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_ENDING_S", 0.1)
    with pytest.raises(ProcessError, match=said):
        call_together([functools.partial(wait, tmp_path), call], NAMES)
    assert not [file for file in tmp_path.iterdir() if Path("/proc", file.name).exists()]


def test_an_interruption_ends_all(tmp_path: Path) -> None:
    def interrupt() -> None:
        next(waiting(tmp_path))
        os.kill(os.getpid(), signal.SIGINT)

    # It is ignored in what a shell has put into the background.
    before, began = signal.signal(signal.SIGINT, signal.default_int_handler), time.monotonic()
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            call_together([functools.partial(wait, tmp_path)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 50
    assert not list(waiting(tmp_path))


def test_they_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", __name__, str(tmp_path)])
    next(waiting(tmp_path))
    process.kill()
    process.wait()
    ends_at = time.monotonic() + 10
    while list(waiting(tmp_path)):
        assert time.monotonic() < ends_at
        time.sleep(0.02)


if __name__ == "__main__":
    call_together([functools.partial(wait, Path(sys.argv[1]))])
