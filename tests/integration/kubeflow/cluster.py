"""What a Kubeflow Pipelines is asked to do with a compiled file; the same for a cluster and the emulator.

Each check returns a line for a person and fails by an AssertionError.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from kfp.client import Client

from kubeflow.api import quiet
from kubeflow.submit import CACHED, FINAL, SUCCEEDED, run_state
from serving.client.client import Client as ModelClient
from serving.protocol.errors import ServingError

MNIST = str(Path(sys.executable).with_name("mnist"))
PARAMETERS = {"train_steps": "20", "batch_size": "32", "accuracy": "0", "class_accuracy": "0"}
IMPORTED = {"Images"}  # an importer is never taken from the cache
# Where models are pushed to a volume, what is in production is looked at, compared with, decided on and
# told each time.
LOOKING = frozenset({"BaselineModel", "Evaluator", "Pusher", "ReportGen"})
FINGERPRINT_NODE = "DataFingerprint"


@dataclass
class Cluster:
    """A Kubeflow Pipelines with data in its bucket, and a compiled file.

    Attributes:
        host: its URL.
        package: the compiled file.
        parameters: of each run, beside PARAMETERS.
        interval: of the schedule.
        timeout_s: for each wait.
        looking: nodes that no run takes from the cache.
        runs: ids of the runs so far.
    """

    host: str
    package: Path
    parameters: dict[str, str] = field(default_factory=dict)
    interval: str = "60s"
    timeout_s: float = 3600
    looking: frozenset[str] = LOOKING
    runs: list[str] = field(default_factory=list)

    def submit(self, *more: str, **parameters: str) -> subprocess.CompletedProcess[str]:
        """Start a run and wait for its end."""
        given = PARAMETERS | self.parameters | parameters
        done = mnist(
            *("submit", self.package, "--host", self.host, "--wait", "--poll", "0.5"),
            *(f"--param={name}={value}" for name, value in given.items()),
            *more,
            timeout_s=self.timeout_s,
        )
        if done.stdout.startswith("run "):
            self.runs.append(done.stdout.split()[1])
        return done

    def states(self, run_id: str) -> dict[str, str]:
        """How each node of a run ended."""
        return {node.name: node.state for node in run_state(self.client.get_run(run_id)).nodes}

    @property
    def client(self) -> Client:
        with quiet():
            return Client(host=self.host, namespace="kubeflow")


def mnist(*words: object, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Call the command line."""
    return subprocess.run(
        [MNIST, *map(str, words)], capture_output=True, text=True, check=False, timeout=timeout_s
    )


def every_node_runs(cluster: Cluster) -> str:
    """A run from nothing."""
    done = cluster.submit()
    assert done.returncode == 0, done.stdout + done.stderr
    states = cluster.states(cluster.runs[-1])
    assert set(states.values()) == {SUCCEEDED}, states
    return f"{len(states)} nodes"


def a_schedule_trains_nothing_again(cluster: Cluster) -> str:
    """A run of a schedule that looks at the data, which are the same."""
    given = (f"--param={n}={v}" for n, v in (PARAMETERS | cluster.parameters).items())
    done = mnist(
        *("schedule", cluster.package, "--host", cluster.host, "--every", cluster.interval),
        *("--when-data-changes", *given),
    )
    assert done.returncode == 0, done.stderr
    schedule_id = done.stdout.split()[1]
    end = time.monotonic() + cluster.timeout_s
    try:
        while True:
            with quiet():
                runs = cluster.client.list_runs(page_size=10, sort_by="created_at desc").runs or []
            started = [run for run in runs if run.recurring_run_id == schedule_id]
            if started and started[-1].state in FINAL:
                break
            assert time.monotonic() < end, f"schedule {schedule_id}: {[run.state for run in started]}"
            if started:
                _delete(cluster, schedule_id)
            time.sleep(0.5)
    finally:
        _delete(cluster, schedule_id)
    states = cluster.states(started[-1].run_id)
    ran = {name for name, state in states.items() if state != CACHED}
    assert FINGERPRINT_NODE in ran
    assert ran == IMPORTED | cluster.looking | {FINGERPRINT_NODE}, states
    assert {states[name] for name in ran} == {SUCCEEDED}, states
    return f"{len(states) - len(ran)} nodes from the cache"


def _delete(cluster: Cluster, schedule_id: str) -> None:
    with quiet():
        known = cluster.client.list_recurring_runs(page_size=100).recurring_runs or []
        if schedule_id in {each.recurring_run_id for each in known}:
            cluster.client.delete_recurring_run(schedule_id)


def everything_comes_from_the_cache(cluster: Cluster) -> str:
    """The same run again."""
    done = cluster.submit()
    assert done.returncode == 0, done.stdout + done.stderr
    states = cluster.states(cluster.runs[-1])
    ran = {name for name, state in states.items() if state != CACHED}
    assert ran == IMPORTED | cluster.looking, states
    return f"{len(states) - len(ran)} nodes from the cache"


def a_gate_refuses(cluster: Cluster) -> str:
    """No model is right about every image, and the run says so without failing."""
    done = cluster.submit(accuracy="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert cluster.states(cluster.runs[-1])["Trainer"] == CACHED
    return "trained nothing, judged again"


def a_wrong_fingerprint_fails(cluster: Cluster) -> str:
    """Other data than the run asks for stop it at the first node, which is named."""
    done = cluster.submit(data_fingerprint="0" * 64)
    assert done.returncode == 1, done.stdout
    assert f"run {cluster.runs[-1]} failed in ImageExampleGen" in done.stderr, done.stderr
    states = cluster.states(cluster.runs[-1])
    assert states["Trainer"] == "NOT RUN", states
    return "failed in ImageExampleGen"


def a_b_a(cluster: Cluster, served: Callable[[], int]) -> str:
    """Another model and then the first one again: each goes into production over the other.

    Args:
        cluster: where the first model was pushed already.
        served: tells the version in production, as soon as it is loaded.
    """
    versions = [served()]
    for steps in ("30", PARAMETERS["train_steps"]):
        done = cluster.submit(train_steps=steps)
        assert done.returncode == 0, done.stdout + done.stderr
        end = time.monotonic() + 120
        while served() == versions[-1]:
            assert time.monotonic() < end, f"after {steps} steps still version {versions[-1]} is served"
            time.sleep(2)
        versions.append(served())
    assert cluster.states(cluster.runs[-1])["Trainer"] == CACHED
    assert versions == sorted(set(versions)), versions
    return " -> ".join(map(str, versions))


def another_bucket(cluster: Cluster, data_uri: str, pipeline_root: str) -> str:
    """Data and artifacts in a bucket that is not the server's own; the same data there would be cached."""
    done = cluster.submit("--no-cache", "--pipeline-root", pipeline_root, data_uri=data_uri)
    assert done.returncode == 0, done.stdout + done.stderr
    states = cluster.states(cluster.runs[-1])
    assert set(states.values()) == {SUCCEEDED}, states
    return pipeline_root


def served_version(address: str, model: str) -> int:
    """The newest version that a server has loaded; -1: none yet."""
    host, _, port = address.rpartition(":")
    try:
        with ModelClient(host, int(port), model=model) as client:
            versions = client.status()
    except ServingError:
        return -1
    return max((each.version for each in versions if each.state == "AVAILABLE"), default=-1)


def the_served_model_answers(host: str, model: str, data: Path, at_least: float) -> str:
    """The digits of the test set, asked for as a client would.

    Args:
        host: of the server, `name:port`.
        model: its name.
        data: folder of IDX files.
        at_least: accuracy that the answers must have.
    """
    labels = np.frombuffer((data / "t10k-labels-idx1-ubyte").read_bytes()[8:], np.uint8)[:100]
    indices = (f"--test-index={index}" for index in range(len(labels)))
    done = mnist("query", "--host", host, "--model", model, "--data-dir", data, "--json", *indices)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    accuracy = np.mean([answer["class"] == label for answer, label in zip(answers, labels, strict=True)])
    assert accuracy >= at_least, accuracy
    return f"{accuracy:.0%} of {len(labels)} digits"
