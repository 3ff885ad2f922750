"""Logs: what libraries write, from C++ too, is in the file and not on the terminal."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.shared.errors import InputError
from pipeline.errors import RefusedError, UserError
from pipeline.runtime import environment, logs


def test_noise_goes_to_the_file_and_our_words_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "run.log"
    with logs.redirected(path) as terminal:
        os.write(1, b"from C on 1\n")
        os.write(2, b"from C on 2\n")
        logging.getLogger("some.library").warning("from Python")
        terminal.write("for a person\n")
    print("after")  # noqa: T201
    out, err = capfd.readouterr()
    assert out == "for a person\nafter\n"
    assert err == ""
    text = path.read_text()
    assert "from C on 1\nfrom C on 2\n" in text
    assert "W some.library: from Python\n" in text


def test_all_is_as_before_after_an_exception(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handlers = logging.getLogger().handlers[:]
    with pytest.raises(KeyboardInterrupt), logs.redirected(tmp_path / "log"):
        raise KeyboardInterrupt
    assert logging.getLogger().handlers == handlers
    os.write(2, b"visible\n")
    assert capfd.readouterr().err == "visible\n"


def test_bad_input_leaves_nothing_and_a_refusal_its_log(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for error, left in ((UserError(), False), (InputError(), False), (RefusedError(), True)):
        with (
            pytest.raises(type(error)),
            environment.scratch_environment(root / "pipelines" / "scratch"),
            logs.redirected(root / "logs" / "log"),
        ):
            raise error
        assert [*root.rglob("*")] == ([root / "logs", root / "logs" / "log"] if left else [])
        assert root.exists() == left
    with pytest.raises(UserError), logs.redirected(root / "logs" / "log"):
        raise UserError
    assert (root / "logs" / "log").is_file()  # of an earlier one


def test_a_terminal_that_takes_nothing_does_not_end_the_work(tmp_path: Path) -> None:
    """A reader that has gone, and a full disk."""
    script = (
        "import pathlib, sys\nfrom pipeline.runtime import logs\n"
        "with logs.redirected(pathlib.Path(sys.argv[1])) as terminal:\n"
        "    for _ in range(3):\n        terminal.write('a line\\n')\n"
        "    print('logged', flush=True)\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    for output in (writer, full):
        log = tmp_path / f"{output}.log"
        done = subprocess.run(
            [sys.executable, "-c", script, log],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(output)
        assert (done.returncode, done.stderr) == (0, "")
        assert log.read_text() == "logged\n"
