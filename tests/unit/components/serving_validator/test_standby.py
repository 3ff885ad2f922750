"""A model server that comes from a fork: like any other, and gone with its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.serving_validator import standby
from tests.unit.components.serving_validator.test_serving_validator import Candidate, wait_until

# TensorFlow and TFX are imported as in a run, so that the fork has what it has there.
_BEGIN = """
import sys, time
from pathlib import Path

from pipeline.runtime import environment

with environment.heavy_imports():
    from pipeline.local import session
from components.serving_validator import model_server, standby
"""
_OPERATIONS = """
from tensorflow.core.framework import op_def_pb2
from tensorflow.python.client.pywrap_tf_session import TF_GetAllOpList, TF_GetBuffer
print(sorted(each.name for each in op_def_pb2.OpList.FromString(TF_GetBuffer(TF_GetAllOpList())).op))
"""
_SERVE = """
base, log = map(Path, sys.argv[1:])
with standby.process(), model_server.serving(base, "", log) as server:
    port = server.ports().rest
    with model_server.Client(model_server.HOST, port, "rest", model=model_server.MODEL) as client:
        print(client.status()[0].state, type(server._process).__name__)
"""
_WAIT = """
with standby.process():
    print(standby._waiting[0]._process.pid, flush=True)
    time.sleep(60)
"""


def output(script: str, *arguments: str) -> str:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_it_serves_as_a_server_of_its_own_and_knows_no_more_operations(tmp_path: Path) -> None:
    Candidate().save(tmp_path / "model" / "1")

    said = output(_BEGIN + _OPERATIONS + _SERVE, str(tmp_path / "model"), str(tmp_path / "log"))

    # With more than `mnist serve` has it would bless what that cannot serve.
    assert said == output("import serving.models.runtime\n" + _OPERATIONS) + "AVAILABLE Standby\n"
    assert "serving candidate" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_it_ends_with_a_run_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _BEGIN + _WAIT], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        waiting = Path(f"/proc/{int(run.stdout.readline())}")
        assert waiting.exists()
        run.kill()
    wait_until(lambda: not waiting.exists())


def test_there_is_none_where_none_was_made_or_it_was_ended() -> None:
    assert standby.take() is None

    with standby.process():
        (waiting,) = standby._waiting
        waiting.kill()
        waiting.wait()
        assert standby.take() is None

    with standby.process():
        taken = standby.take()
        assert taken is not None
        assert taken.poll() is None
        assert standby.take() is None
    assert taken.poll() == -signal.SIGKILL


def test_a_machine_without_room_for_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room() -> int:
        raise BlockingIOError("fork: retry: Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_room)

    with standby.process():
        assert standby.take() is None
