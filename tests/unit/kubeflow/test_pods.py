"""The pods of compiled files: Kubernetes takes them, and a namespace with the restricted profile does."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from kubeflow import data_changes, spec
from kubeflow.settings import load
from kubeflow.spec import File
from pipeline.config import ConfigError
from tests.unit.kubeflow import pods
from tests.unit.kubeflow.conftest import REPOSITORY, Compile

EXAMPLES = sorted((REPOSITORY / "kubeflow" / "configs").glob("*.toml"))
EVERYTHING = """
push = { to = "artifact" }
[kubeflow]
image_pull_secrets = ["regcred"]
labels = { "kueue.x-k8s.io/queue-name" = "team" }
annotations = { note = "hello" }
ttl_after_success_s = 3600
ttl_after_failure_s = 604800
[kubeflow.node]
deadline_s = 7200
node_affinity = [
  { key = "topology.kubernetes.io/zone", values = ["a", "b"] },
  { key = "node.kubernetes.io/lifecycle", operator = "DoesNotExist" },
  { key = "disk", operator = "Exists", weight = 40 },
]
[kubeflow.nodes.Trainer]
gpus = 2
shared_memory = "1Gi"
env = { A = "1" }
secrets = [{ secret = "tracking", key = "token", env = "TOKEN", optional = true }]
tolerations = [{ key = "gpu", operator = "Equal", value = "yes", effect = "NoExecute" }]
volumes = [{ claim = "work", path = "/work" }]
"""


def all_pods(file: File) -> list[Any]:
    return [pods.of(file, task) for task in file.order() if "container" in file.executor(task)]


@pytest.fixture(scope="module")
def everything(compiled: Compile, tmp_path_factory: pytest.TempPathFactory) -> File:
    path = tmp_path_factory.mktemp("settings") / "everything.toml"
    path.write_text(EVERYTHING)
    return spec.read(compiled(file=path).to_yaml())


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_pods_of_every_example_are_taken(example: Path, compiled: Compile) -> None:
    file = data_changes.with_fingerprint_node(spec.read(compiled(file=example).to_yaml()))
    made = all_pods(file)

    assert len(made) == len(file.tasks) - 1  # the importer has none
    for pod in made:
        pods.check(pod)
        assert pods.breaches(pod["spec"]) == []


@pytest.mark.slow
def test_the_pods_with_every_setting_are_taken(everything: File) -> None:
    for pod in all_pods(everything):
        pods.check(pod)
        assert pods.breaches(pod["spec"]) == []
    trainer = pods.of(everything, "Trainer")["spec"]
    assert trainer["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    affinity = trainer["affinity"]["nodeAffinity"]
    ((zone, lifecycle),) = [
        term["matchExpressions"]
        for term in affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    ]
    assert zone == {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a", "b"]}
    assert lifecycle == {"key": "node.kubernetes.io/lifecycle", "operator": "DoesNotExist"}
    (preferred,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["weight"] == 40


def test_how_long_pods_stay_is_the_runs_business(everything: File) -> None:
    assert everything.platform["platforms"]["kubernetes"]["pipelineConfig"] == {
        "resourceTtlOnSuccess": 3600,
        "resourceTtlOnFailure": 604800,
    }


@pytest.mark.parametrize(
    ("affinity", "said"),
    [
        ('{ key = "a", operator = "Exists", values = ["b"] }', "operator Exists takes no values"),
        ('{ key = "a" }', "operator In takes values"),
        ('{ key = "a", operator = "Gt", values = ["1", "2"] }', "operator Gt takes one value"),
        ('{ key = "a", values = ["b"], weight = 101 }', "less than or equal to 100"),
        ('{ key = "a b", values = ["c"] }', "key"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused(affinity: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f"[kubeflow.node]\nnode_affinity = [{affinity}]\n")

    with pytest.raises(ConfigError, match=said):
        load(path)


def test_the_checks_find_what_is_wrong(everything: File) -> None:
    good = pods.of(everything, "Trainer")
    misspelt = copy.deepcopy(good)
    misspelt["spec"]["nodeSelektor"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        pods.check(misspelt)

    def breached(change: dict[str, Any], of_pod: dict[str, Any] | None = None) -> list[str]:
        made = copy.deepcopy(good["spec"]) | (of_pod or {})
        made["containers"][0]["securityContext"] |= change
        return pods.breaches(made)

    assert breached({}) == []
    assert breached({"runAsNonRoot": False}) == ["main: runAsNonRoot"]
    assert breached({"runAsUser": 0}) == ["main: runAsNonRoot"]
    assert breached({"capabilities": {}}) == ["main: capabilities"]
    assert breached({"allowPrivilegeEscalation": True}) == ["main: allowPrivilegeEscalation"]
    assert breached({"seccompProfile": {"type": "Unconfined"}}) == ["main: seccompProfile"]
    assert breached({}, {"hostNetwork": True}) == ["hostNetwork"]
    assert breached({}, {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}) == ["volume x: hostPath"]
