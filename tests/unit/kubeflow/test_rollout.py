"""A canary is promoted or rolled back by what the servers count; kubectl is played by a script."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from kubeflow.rollout import (
    FAULTS,
    METRICS_PATH,
    Decision,
    Limits,
    MetricsError,
    Traffic,
    Watch,
    decide,
    read,
)
from pipeline.cli.main import main
from serving.protocol.errors import Code
from serving.server.rest import METRICS_PATH as PATH_OF_THE_SERVER
from serving.server.telemetry.metrics import Metrics

CANARY, BEFORE = "mnist-predictor-00002", "mnist-predictor-00001"


def page(
    model: str = "mnist", *, good: int = 0, bad: int = 0, code: Code = Code.INTERNAL, s: float = 0.01
) -> str:
    """What a server shows after so many requests."""
    metrics = Metrics()
    for _ in range(good):
        metrics.request(model, "1", "predict", "rest", Code.OK, s)
    for _ in range(bad):
        metrics.request(model, "1", "predict", "rest", code, s)
    return metrics.page().decode()


def test_a_servers_page_is_read_for_one_model() -> None:
    found = read(page(good=3, bad=2, s=0.5) + page("other", good=9), "mnist")

    assert (found.requests, found.faults, found.timed) == (5, 2, 3)
    assert found.latency_s == pytest.approx(0.5)
    assert read(page(), "mnist") == Traffic()
    assert read(page(bad=4, code=Code.INVALID_ARGUMENT), "mnist").faults == 0
    with pytest.raises(MetricsError):
        read("<html>please log in</html>", "mnist")


def test_the_names_are_the_servers() -> None:
    assert f"/{METRICS_PATH}" == PATH_OF_THE_SERVER
    assert {code.name for code in Code} >= FAULTS
    assert not FAULTS & {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}


def test_counting_begins_with_the_watch_and_goes_over_restarts() -> None:
    watch = Watch()
    watch.look({"a": Traffic(requests=100, faults=50)})
    assert watch.total == Traffic()
    watch.look({"a": Traffic(requests=110, faults=50), "new": Traffic(requests=5)})
    watch.look({"new": Traffic(requests=2)})  # it was started again, and a is gone
    watch.look({"a": Traffic(requests=112, faults=51)})
    assert watch.total == Traffic(requests=10 + 5 + 2 + 2, faults=1)


GOOD = Traffic(requests=1000, faults=1, timed=999, seconds=9.99)


@pytest.mark.parametrize(
    ("canary", "over", "decision"),
    [
        (Traffic(requests=199, faults=199), True, Decision.WAIT),
        (Traffic(requests=300, faults=1, timed=299, seconds=3), False, Decision.WAIT),
        (Traffic(requests=300, faults=1, timed=299, seconds=3), True, Decision.PROMOTE),
        (Traffic(requests=300, faults=10), False, Decision.ROLL_BACK),
        (Traffic(requests=300, timed=300, seconds=6), False, Decision.ROLL_BACK),
    ],
)
def test_a_decision(canary: Traffic, over: bool, decision: Decision) -> None:
    assert decide(canary, GOOD, Limits(), over)[0] is decision


@given(requests=st.integers(0, 10_000), faults=st.floats(0, 1), over=st.booleans())
def test_equal_versions_are_never_rolled_back(requests: int, faults: float, over: bool) -> None:
    traffic = Traffic(requests, requests * faults, requests, requests * 0.01)

    assert decide(traffic, traffic, Limits(), over)[0] is not Decision.ROLL_BACK


# Answers like kubectl, from files; notes what is patched; a page's look is its number of calls.
KUBECTL = """
import json, pathlib, sys
folder, words = pathlib.Path(__file__).parent, sys.argv[1:]
if words[0] == "-n":
    (folder / "namespace").write_text(words[1])
    words = words[2:]
if words[:2] == ["get", "inferenceservice"]:
    print((folder / "service.json").read_text())
elif words[:2] == ["get", "pods"]:
    revision = words[words.index("-l") + 1].partition("=")[2]
    pod = {"metadata": {"name": revision + "-pod", "namespace": "team"}}
    print(json.dumps({"items": [pod]}))
elif words[:2] == ["get", "--raw"]:
    name = words[2].partition("/pods/")[2].partition(":")[0].removesuffix("-pod")
    looks = sorted(folder.glob(name + "-*.txt"))
    print(looks[0].read_text())
    if len(looks) > 1:
        looks[0].unlink()
elif words[0] == "patch":
    (folder / "patched").write_text(words[words.index("-p") + 1])
else:
    sys.exit("error: unknown " + " ".join(words))
"""


@dataclass
class Cluster:
    """A folder that the script answers from."""

    folder: Path

    def looks(self, revision: str, *pages: str) -> None:
        for number, text in enumerate(pages):
            (self.folder / f"{revision}-{number}.txt").write_text(text)

    def service(self, percent: int | None, *traffic: dict[str, Any]) -> None:
        predictor = {} if percent is None else {"canaryTrafficPercent": percent}
        status = {"components": {"predictor": {"traffic": list(traffic)}}}
        text = json.dumps({"spec": {"predictor": predictor}, "status": status})
        (self.folder / "service.json").write_text(text)

    @property
    def patched(self) -> Any:
        file = self.folder / "patched"
        return json.loads(file.read_text()) if file.exists() else None


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    script = tmp_path / "kubectl"
    script.write_text(f"#!{sys.executable}\n{KUBECTL}")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    made = Cluster(tmp_path)
    made.service(
        10,
        {"revisionName": CANARY, "latestRevision": True, "percent": 10, "tag": "latest"},
        {"revisionName": BEFORE, "latestRevision": False, "percent": 90, "tag": "prev"},
    )
    made.looks(BEFORE, page(), page(good=900))
    return made


def rollout(*more: str) -> Result:
    return CliRunner().invoke(main, ["rollout", "mnist", "--watch", "1s", "--poll", "0.05", *more])


@pytest.mark.slow
def test_a_good_canary_gets_all_requests(cluster: Cluster) -> None:
    cluster.looks(CANARY, page(), page(good=300))
    result = rollout("--namespace", "team")

    assert result.exit_code == 0, result.output
    assert f"{CANARY} gets all requests: 300 requests" in result.output
    assert cluster.patched == [{"op": "remove", "path": "/spec/predictor/canaryTrafficPercent"}]
    assert (cluster.folder / "namespace").read_text() == "team"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("last", "why"), [(page(good=250, bad=50), "fail"), (page(good=300, s=0.1), "takes 100.0 ms")]
)
def test_a_bad_canary_gets_none(cluster: Cluster, last: str, why: str) -> None:
    cluster.looks(CANARY, page(), last)
    result = rollout("--watch", "1h")  # it is not waited for

    assert result.exit_code == 1
    assert f"{CANARY} is rolled back" in result.stderr
    assert why in result.stderr
    assert cluster.patched == [
        {"op": "replace", "path": "/spec/predictor/canaryTrafficPercent", "value": 0}
    ]


@pytest.mark.slow
def test_too_few_requests_decide_nothing(cluster: Cluster) -> None:
    cluster.looks(CANARY, page(), page(bad=20))
    result = rollout()

    assert result.exit_code == 1
    assert "keeps its share, nothing is decided: 20 of 200 requests" in result.stderr
    assert cluster.patched is None


def test_what_is_no_canary_is_named(cluster: Cluster) -> None:
    cluster.service(None, {"revisionName": BEFORE, "latestRevision": True, "percent": 100})
    result = rollout()
    assert result.exit_code == 2
    assert f"has no canary: its requests go to {BEFORE}" in result.stderr


def test_what_kubectl_says_is_told(cluster: Cluster) -> None:
    cluster.looks(CANARY, "<html>")
    result = rollout()
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "--monitoring_config_file" in result.stderr

    (cluster.folder / "kubectl").write_text("#!/bin/sh\necho 'error: no such server' >&2; exit 1\n")
    assert "kubectl get inferenceservice mnist: error: no such server" in rollout().stderr


def test_without_kubectl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = rollout()
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "kubectl is not here" in result.stderr
