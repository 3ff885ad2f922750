"""submit, status and schedule against the emulator behind Kubeflow's API: what is submitted is executed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from kfp.client import Client
from kfp_server_api import ApiException

from kubeflow.api import quiet
from kubeflow.emulator.run import Options
from kubeflow.emulator.server import serving
from kubeflow.submit import FINAL
from pipeline.cli.main import main
from tests.unit.kubeflow.emulator.test_run import CACHED, answering, spec, task


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    with serving(Options(tmp_path / "store")) as url:
        yield url


def mnist(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def compiled(tmp_path: Path, script: str = "true") -> Path:
    """A file of three nodes: one that the cache knows, one that runs the script, one after it."""
    pipeline = spec(
        first=answering("{}", **CACHED),
        second=task(script, needs={"i": ("first", "o")}, dependentTasks=["first"]),
        third=task("true", dependentTasks=["second"]),
    )
    pipeline["root"]["inputDefinitions"]["parameters"] = {
        "steps": {"parameterType": "NUMBER_INTEGER", "defaultValue": 5}
    }
    path = tmp_path / "shell.yaml"
    path.write_text(yaml.safe_dump(pipeline))
    return path


def submit(path: Path, host: str, *more: object) -> tuple[Result, str]:
    result = mnist("submit", path, "--host", host, "--wait", "--poll", "0.05", *more)
    return result, result.stdout.splitlines()[0].split()[1]


@pytest.mark.slow
def test_what_is_submitted_is_executed_and_told(host: str, tmp_path: Path) -> None:
    result, run_id = submit(compiled(tmp_path), host)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"run {run_id}: succeeded"
    written = tmp_path / "store/objects/minio/bucket/root/shell"  # below the root that submit sent
    assert list(written.rglob("file"))

    again, run_id = submit(compiled(tmp_path), host)
    assert again.exit_code == 0
    told = mnist("kubeflow", "status", run_id, "--host", host)
    assert told.exit_code == 0, told.output
    found = {line.split()[0]: line.split()[1] for line in told.stdout.splitlines()[1:4]}
    assert found == {"first": "cached", "second": "succeeded", "third": "succeeded"}


@pytest.mark.slow
def test_a_run_that_fails_names_the_node_and_what_never_ran(host: str, tmp_path: Path) -> None:
    result, run_id = submit(compiled(tmp_path, "echo no luck; exit 3"), host)

    assert result.exit_code == 1
    assert f"run {run_id} failed in second" in result.stderr
    assert "no luck" in result.stderr
    told = mnist("kubeflow", "status", run_id, "--host", host)
    assert told.exit_code == 1
    assert "third                 not run" in told.stdout
    unknown = mnist("kubeflow", "status", "no-such-run", "--host", host)
    assert "Run no-such-run not found" in unknown.stderr


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def client(host: str) -> Client:
    with quiet():
        return Client(host=host, namespace="kubeflow")


@pytest.mark.slow
@pytest.mark.parametrize("when", [("--every", "1s"), ("--cron", "* * * * * *")])
def test_a_schedule_starts_runs_until_it_is_deleted(
    when: tuple[str, str], host: str, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    path = compiled(tmp_path, f"echo x >> {done}")
    scheduled = mnist("schedule", path, "--host", host, *when)
    assert scheduled.exit_code == 0, scheduled.output
    schedule_id = scheduled.stdout.split()[1]

    wait_until(lambda: done.exists() and len(done.read_text().split()) == 2)
    with quiet():
        runs = client(host).list_runs(sort_by="created_at desc").runs
        assert {run.recurring_run_id for run in runs} == {schedule_id}
        assert runs[0].created_at >= runs[-1].created_at
        assert client(host).get_recurring_run(schedule_id).status == "ENABLED"
        client(host).delete_recurring_run(schedule_id)
        wait_until(lambda: all(r.state in FINAL for r in client(host).list_runs().runs))
        begun = len(client(host).list_runs().runs)
        time.sleep(1.5)
        assert len(client(host).list_runs().runs) == begun
        with pytest.raises(ApiException, match="not found"):
            client(host).get_recurring_run(schedule_id)


@pytest.mark.slow
def test_a_schedule_has_one_run_at_a_time_and_an_end(host: str, tmp_path: Path) -> None:
    path = compiled(tmp_path, f"echo x >> {tmp_path}/begun; sleep 2")
    end = datetime.now(UTC) + timedelta(seconds=2.5)

    mnist("schedule", path, "--host", host, "--every", "1s", "--end", end.isoformat())

    wait_until(lambda: (tmp_path / "begun").exists())
    with quiet():
        wait_until(lambda: all(r.state == "SUCCEEDED" for r in client(host).list_runs().runs))
    assert (tmp_path / "begun").read_text().split() == ["x"], "the second was due while the first one ran"


def test_a_port_that_is_taken_is_named(host: str, tmp_path: Path) -> None:
    port = host.rpartition(":")[2]
    result = mnist("kubeflow", "serve-emulator", "--store", tmp_path, "--port", port)

    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"mnist: port {port}: ")
    assert "give a free --port" in result.stderr
