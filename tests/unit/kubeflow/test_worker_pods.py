"""A step in several pods: their Job, how they meet, and how they fail; tests/integration trains in them."""

from __future__ import annotations

import functools
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeflow import rendezvous, spec, worker, worker_pods
from kubeflow.emulator import run as emulator
from kubeflow.rendezvous import Rendezvous
from pipeline.config import ConfigError
from pipeline.errors import UserError
from tests.unit.kubeflow import pods
from tests.unit.kubeflow.conftest import REPOSITORY, Compile
from tests.unit.kubeflow.kubernetes_api import NAMESPACE, Kubernetes

SETTINGS = """
push = { to = "artifact" }
[kubeflow]
labels = { team = "digits" }
[kubeflow.nodes.Trainer]
workers = 3
gpus = 2
memory = "4Gi"
shared_memory = "1Gi"
env = { A = "1" }
node_selector = { disk = "fast" }
secrets = [{ secret = "tracking", key = "token", env = "TOKEN" }]
tolerations = [{ key = "gpu" }]
volumes = [{ claim = "work", path = "/work" }]
"""
# A pod that comes to the rendezvous, and then has a fault.
FAULTY = (
    "import os, sys, time; from kubeflow import rendezvous, worker;"
    "rendezvous.join(os.environ[worker.RENDEZVOUS], 1, '.'); time.sleep(1);"
    "sys.exit('ValueError: bad\\n2026-11-26 06:48:10,059 I tensorflow: goes on')"
)


def own_pod(file: spec.File) -> Any:
    """The step's pod, as it runs, with what Argo and the launcher bring along."""
    pod = pods.of(file, "Trainer")
    pod["metadata"] |= {"uid": "0b6a4f5e-8c3d-4a9b-9a1e-5d1f2c3b4a59", "name": "mnist-x-impl-7"}
    pod["metadata"].setdefault("labels", {})["workflows.argoproj.io/workflow"] = "mnist-x"
    pod["status"] = {"podIP": "127.0.0.1"}
    container = pod["spec"]["containers"][0]
    container["command"] = ["/var/run/argo/argoexec", "emissary", "--", *container["command"]]
    container["volumeMounts"] += [
        {"name": "minio-scratch", "mountPath": "/minio"},
        {"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
    ]
    container["env"].insert(0, {"name": "ARGO_TEMPLATE", "value": "{}"})
    token = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
    pod["spec"]["volumes"] += [
        {"name": "minio-scratch", "emptyDir": {}},
        {"name": "kube-api-access", "projected": token},
    ]
    pod["spec"]["containers"].append({"name": "wait", "image": "argoexec"})
    pod["spec"]["serviceAccountName"] = "runner"
    return pod


@pytest.fixture(scope="module")
def trainer_pod(compiled: Compile, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("settings") / "settings.toml"
    path.write_text(SETTINGS)
    return own_pod(spec.read(compiled(file=path).to_yaml()))


def test_the_other_pods_are_as_the_steps_own_but_for_its_claims_and_rights(trainer_pod: Any) -> None:
    job = worker_pods.job(trainer_pod, 2, {"RENDEZVOUS": "http://10.0.0.7:1/x"})
    pods.check(job)
    template = job["spec"].pop("template")
    assert pods.breaches(template["spec"]) == []
    assert job["spec"] == {
        "completionMode": "Indexed",
        "completions": 2,
        "parallelism": 2,
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": 3600,
    }
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Pod", trainer_pod["metadata"]["uid"])
    # Kubernetes makes host names of it, of 63 characters at most.
    assert len(f"{job['metadata']['name']}-63") <= 63

    assert template["metadata"]["labels"] == {"team": "digits"}
    (container,) = template["spec"]["containers"]
    main = trainer_pod["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "kubeflow.worker"]
    assert [container[key] for key in ("image", "resources")] == [main["image"], main["resources"]]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2", "memory": "4Gi"}
    assert container["env"] == [*main["env"][1:], {"name": "RENDEZVOUS", "value": "http://10.0.0.7:1/x"}]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/dev/shm", "/minio"}
    assert {volume["name"] for volume in template["spec"]["volumes"]} == {"shm", "minio-scratch"}
    for key in ("nodeSelector", "tolerations", "securityContext", "serviceAccountName"):
        assert template["spec"][key] == trainer_pod["spec"][key]
    assert template["spec"]["automountServiceAccountToken"] is False


def test_pods_meet_and_get_the_files(tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/a").write_bytes(b"1" * 100_000)
    (tmp_path / "last").write_text("2")
    found: dict[int, list[str]] = {}

    def come(index: int, url: str) -> None:
        (tmp_path / str(index)).mkdir()
        found[index] = rendezvous.join(url, index, str(tmp_path / str(index)))

    files = {"minio/in": str(tmp_path / "in"), "minio/last": str(tmp_path / "last")}
    with Rendezvous("127.0.0.1", 2, files) as here:
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{here.url[:-3]}xx/1/127.0.0.1:1")
        threads = [threading.Thread(target=come, args=(index, here.url)) for index in (2, 1)]
        threads[0].start()
        assert not here.complete.wait(0.1)
        threads[1].start()
        for thread in threads:
            thread.join(10)
        assert here.complete.is_set()
    assert found[1] == found[2] == here.addresses
    assert len(set(here.addresses)) == 3
    for index in ("1", "2"):
        assert (tmp_path / index / "minio/in/deep/a").read_bytes() == b"1" * 100_000
        assert (tmp_path / index / "minio/last").read_text() == "2"


def test_a_pod_that_finds_nobody_or_not_everything_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Rendezvous("127.0.0.1", 1, {"gone": str(tmp_path / "gone")}) as here:
        with pytest.raises(rendezvous.RendezvousError, match="cannot be reached, or has gone"):
            rendezvous.join(here.url, 1, str(tmp_path))
        (tmp_path / "gone").write_text("")
        monkeypatch.setenv("LAUNCHER_ROOT", str(tmp_path))
        monkeypatch.setenv(worker.RENDEZVOUS, here.url)
        monkeypatch.setenv(worker.STEP, str(tmp_path / "step.json"))
        with pytest.raises(rendezvous.RendezvousError, match="before all of its files were here"):
            worker.train(1)
    with pytest.raises(rendezvous.RendezvousError, match="cannot be reached"):
        rendezvous.join(here.url, 1, str(tmp_path))


@pytest.mark.slow
def test_a_pod_that_fails_ends_the_others_and_is_named(
    trainer_pod: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_POD_NAME", trainer_pod["metadata"]["name"])
    command = (sys.executable, "-c", FAULTY)
    with Kubernetes(tmp_path, trainer_pod, command, {"PYTHONPATH": str(REPOSITORY)}) as here:
        monkeypatch.setenv("KUBECONFIG", str(here.kubeconfig))
        began = time.monotonic()
        with pytest.raises(worker_pods.WorkerPodsError) as failure:
            worker_pods.train(functools.partial(time.sleep, 500), 2, {}, "")
        assert time.monotonic() - began < 400
        assert here.deleted
        name = f"{here.job['metadata']['name']}-0-x"
        said = f"worker 1 of 2 (pod {name}): Error, exit code 1: ValueError: bad"
        assert str(failure.value) == said

        # What the first pod says of it comes first, and says less.
        here.deleted = False
        lost = worker_pods._Pods(here.job["metadata"]["name"], NAMESPACE, 2)
        assert lost.cause("worker 0 of 2: UnavailableError: Socket closed") == said
        assert lost.cause("worker 0 of 2: OSError: disk full") == "worker 0 of 2: OSError: disk full"
    role = yaml.safe_load((REPOSITORY / "kubeflow/manifests/workers/role.yaml").read_text())
    assert here.asked == {
        (verb, each) for rule in role["rules"] for each in rule["resources"] for verb in rule["verbs"]
    }


@pytest.mark.slow
def test_what_kubernetes_refuses_is_one_line(
    trainer_pod: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        worker_pods.WorkerPodsError, match=r"^there is no Kubernetes to start other pods in:"
    ):
        worker_pods.train(print, 2, {}, "")
    said = 'jobs.batch is forbidden: User "x" cannot create resource'
    with Kubernetes(tmp_path, trainer_pod, refused=said) as here:
        monkeypatch.setenv("KUBECONFIG", str(here.kubeconfig))
        monkeypatch.setenv("KFP_POD_NAME", "another")
        with pytest.raises(
            worker_pods.WorkerPodsError, match=r"^cannot read the step's pod another: .* not f"
        ):
            worker_pods.train(print, 2, {}, "")
        monkeypatch.setenv("KFP_POD_NAME", trainer_pod["metadata"]["name"])
        with pytest.raises(worker_pods.WorkerPodsError) as refusal:
            worker_pods.train(print, 2, {}, "")
    assert str(refusal.value) == (
        f"cannot start 1 other pods: {said} "
        "(kubeflow/manifests/workers has what the step's service account needs)"
    )


def test_why_pods_wait_is_told() -> None:
    def pending(index: int, **status: Any) -> Any:
        annotations = {"batch.kubernetes.io/job-completion-index": str(index)}
        return {"metadata": {"annotations": annotations}, "status": {"phase": "Pending", **status}}

    state = {"waiting": {"reason": "ErrImagePull"}}
    found = [
        pending(0, conditions=[{"status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]),
        pending(1, containerStatuses=[{"state": state}]),
        pending(2) | {"status": {"phase": "Running"}},
    ]
    assert (
        worker_pods.waiting(found)
        == "worker 1 waits: Unschedulable: 0/3 nodes; worker 2 waits: ErrImagePull"
    )


@pytest.mark.slow
def test_the_trainer_alone_gets_workers(compiled: Compile, tmp_path: Path) -> None:
    settings = "kubeflow.nodes.Trainer.workers=2"
    file = compiled(settings)
    executors = file.pipeline_spec["deploymentSpec"]["executors"]
    given = {label: each["container"]["args"] for label, each in executors.items() if "container" in each}
    assert given["Trainer_executor"][-2:] == ["--workers", "2"]
    assert [label for label, arguments in given.items() if "--workers" in arguments] == ["Trainer_executor"]
    for other in ("kubeflow.node.workers=2", "kubeflow.nodes.Evaluator.workers=2"):
        with pytest.raises(ConfigError, match="is no work of several pods"):
            compiled(other)
    with pytest.raises(
        UserError, match=r"^Trainer runs as several pods, which this emulator does not start"
    ):
        emulator.run(spec.read(file.to_yaml()), {}, emulator.Options(tmp_path), None)  # type: ignore
