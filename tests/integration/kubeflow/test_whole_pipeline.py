"""The compiled pipeline, really run: every container's command is a process of its own."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

import pytest

from components.image_example_gen.sources import idx, idx_pairs
from components.shared import model_store, verdict
from components.shared.verdict import Verdict
from kubeflow import spec
from kubeflow.compile import compile_pipeline
from kubeflow.emulator import run as emulator
from kubeflow.emulator.server import serving
from kubeflow.settings import load
from kubeflow.spec import File
from pipeline.nodes import NodeId
from pipeline.resolve import for_a_cluster
from tests.conftest import TINY_TRAIN
from tests.integration.kubeflow import cluster as checks
from tests.integration.kubeflow.cluster import Cluster
from tests.unit.components.nearest import Nearest
from tests.unit.kubeflow.conftest import REPOSITORY
from tests.unit.kubeflow.emulator.test_run import Silent

DATA = "minio://mlpipeline/data/mnist"
MODEL = "digits"
SETTINGS = (
    "kubeflow.node.retries=0",
    "gates.calibration_error=1",
    "gates.accuracy_drop=1",
    "gates.class_accuracy_drop=1",
    "trainer.run_config.save_checkpoints_steps=20",
)
STEPS = 200  # so many that the Trainer is still at it when it is ended


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kubeflow")


@pytest.fixture(scope="module")
def cluster(store: Path, tiny_mnist_dir: Path) -> Iterator[Cluster]:
    """The emulator behind Kubeflow's API, with the digits in its bucket, and the file of an example.

    The Trainer has a volume, and so its checkpoints outlive its pod.
    """
    example = (REPOSITORY / "kubeflow" / "configs" / "example.toml").read_text()
    trainer = 'retries = 1\nvolumes = [{ claim = "work", path = "/work" }]\n'
    toml, package = store / "with-a-volume.toml", store / "mnist.yaml"
    toml.write_text(example.replace("[kubeflow.nodes.Trainer]\n", f"[kubeflow.nodes.Trainer]\n{trainer}"))
    config, kubeflow = load(toml, SETTINGS)
    package.write_text(compile_pipeline(for_a_cluster(config, tiny_mnist_dir), kubeflow).to_yaml())
    options = emulator.Options(store)
    options.objects().put(tiny_mnist_dir, DATA)
    with serving(options) as host:
        parameters = {"model_name": MODEL, "train_steps": str(STEPS)}
        yield Cluster(host, package, parameters, interval="1s", timeout_s=500)


@pytest.fixture(scope="module")
def again(cluster: Cluster) -> Cluster:
    """For runs after the first one: the same file without its last node, which they need not wait for."""
    file = spec.read_file(cluster.package)
    del file.tasks[NodeId.REPORT_GEN]
    package = cluster.package.with_name("again.yaml")
    package.write_text(file.to_yaml())
    return dataclasses.replace(cluster, package=package, looking=checks.LOOKING - {NodeId.REPORT_GEN})


def versions(store: Path) -> list[int]:
    return [each.number for each in model_store.versions(store / "volumes" / "mnist-models" / MODEL)]


def newest_verdict(store: Path) -> Verdict:
    file = max(store.rglob("verdict.json"), key=lambda path: path.stat().st_mtime_ns)
    return verdict.from_json(file.read_text())


@pytest.mark.slow
def test_the_whole_pipeline_runs_though_its_trainer_is_preempted(cluster: Cluster, store: Path) -> None:
    """Its process group is ended as soon as a checkpoint is on the volume, as Argo ends a preempted pod."""
    over = Event()
    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(end_the_trainer, store, over)
        try:
            checks.every_node_runs(cluster)
        finally:
            over.set()
        step = killing.result()

    assert len(versions(store)) == 1
    assert newest_verdict(store).baseline is None, "nothing was in production"
    first, second = (next(store.rglob(f"Trainer/*/executor-logs-{attempt}")) for attempt in (0, 1))
    assert "terminated; nothing is handed on" in first.read_text()
    (went_on,) = re.findall(r"going on from step (\d+) of an earlier run", second.read_text())
    assert step <= int(went_on) < STEPS
    assert not list((store / "volumes" / "work").rglob("checkpoint-*")), "the run is over"
    for log in store.rglob("executor-logs-*"):
        lines = log.read_text().splitlines()
        assert len(lines) < 60, f"{log}: {len(lines)} lines"
        assert not [line for line in lines if re.search("cuda|CUDA|cuInit", line)]


def end_the_trainer(store: Path, over: Event) -> int:
    """End the Trainer's process group once a checkpoint is there; returns its step."""
    while not (found := list((store / "volumes" / "work").rglob("checkpoint-*.npz"))):
        assert not over.wait(0.02), "the run ended without a checkpoint"
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().match(f"{store}/pods/*/Trainer"):
                os.killpg(os.getpgid(int(process.name)), signal.SIGTERM)
                break
    return min(int(path.stem.rpartition("-")[2]) for path in found)


@pytest.mark.slow
def test_the_pushed_model_answers(store: Path, tiny_mnist_dir: Path) -> None:
    """After the test above, as a server on the same volume serves it."""
    models = store / "volumes" / "mnist-models" / MODEL
    with a_server(models) as address:
        while checks.served_version(address, MODEL) < 0:
            time.sleep(0.5)
        checks.the_served_model_answers(address, MODEL, tiny_mnist_dir, at_least=0.2)  # chance is 0.1


@contextmanager
def a_server(models: Path) -> Iterator[str]:
    """Serve the models of a folder; yields the address for gRPC."""
    command = [checks.MNIST, "serve", "--model-dir", str(models), "--port", "0", "--rest-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        told = next(match for line in process.stdout if (match := re.search(r"gRPC (\S+:\d+)", line)))
        yield told[1]
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_a_schedule_trains_nothing_while_the_data_stay(again: Cluster, store: Path) -> None:
    """After the tests above: the model is in production itself by now, so it is not pushed again."""
    before = versions(store)
    checks.a_schedule_trains_nothing_again(again)
    assert versions(store) == before


@pytest.mark.slow
def test_a_model_goes_over_the_one_that_came_in_between(
    again: Cluster, store: Path, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    """A, B, A, after the tests above: B is somebody else's, and A is judged again and pushed once more."""
    models = store / "volumes" / "mnist-models" / MODEL
    (first,) = model_store.versions(models)
    files = idx.find_files(tiny_mnist_dir)
    Nearest(*next(idx_pairs.stream(files.train_images, files.train_labels, TINY_TRAIN, None))).save(
        tmp_path
    )
    between = model_store.write(tmp_path, models)

    checks.everything_comes_from_the_cache(again)

    judged = newest_verdict(store)
    assert judged.baseline is not None
    assert judged.baseline.version == str(between.number)
    assert versions(store)[:2] == [first.number, between.number]
    pushed = model_store.versions(models)[2:]
    (third,) = (version.folder for version in pushed)
    assert model_store.fingerprint(third) == model_store.fingerprint(first.folder)
    assert oct((third / "saved_model.pb").stat().st_mode & 0o777) == "0o664"


@pytest.mark.slow
def test_a_gate_of_the_run_refuses_the_model(again: Cluster, store: Path) -> None:
    """After the tests above: training comes from the cache, the Evaluator has another gate."""
    before = versions(store)
    checks.a_gate_refuses(again)
    assert versions(store) == before


@pytest.mark.slow
def test_another_fingerprint_is_no_stale_hit(again: Cluster) -> None:
    """After the tests above: the data are what they were, but the run asks for others."""
    checks.a_wrong_fingerprint_fails(again)
    assert "the data in minio://" in again.client.get_run(again.runs[-1]).error.message


# The nodes that run, of which the last one fails, and what it says.
REPAIRS = {
    # TFX looks for a title in a schema that is not there.
    "with_types": (
        ("Images", "ImageExampleGen"),
        "AttributeError: 'NoneType' object has no attribute 'get'",
    ),
    # The driver's artifact type is none of TFX's.
    "without_drivers_outputs": (("CuratedSchema",), "Could not import system.Artifact"),
    # What was downloaded is not where the executor looks.
    "to_local": (("Images", "ImageExampleGen"), "minio:/mlpipeline/data/mnist: there is no such folder"),
    # Nothing is uploaded, which shows in the next step.
    "to_remote": (("CuratedSchema", "StatisticsGen"), "failed to parse bucketConfig"),
}


@pytest.mark.slow
@pytest.mark.parametrize("repair", REPAIRS)
def test_without_a_repair_the_step_fails_as_on_the_cluster(
    repair: str, tmp_path: Path, tiny_mnist_dir: Path
) -> None:
    kept, said = REPAIRS[repair]
    config, kubeflow = load(
        None,
        [
            "push.to=artifact",
            "kubeflow.node.retries=0",
            f"kubeflow.node.env.WITHOUT={repair}",
            f"kubeflow.node.env.PYTHONPATH={REPOSITORY}",
        ],
    )
    entrypoint = ("python", "-m", "tests.integration.kubeflow.broken_entrypoint")
    pipeline = compile_pipeline(config, kubeflow, entrypoint=entrypoint).pipeline_spec
    tasks = pipeline["root"]["dag"]["tasks"]
    pipeline["root"]["dag"]["tasks"] = {name: tasks[name] for name in kept}
    for name in kept:
        body = tasks[name]
        body["dependentTasks"] = [other for other in body.get("dependentTasks", ()) if other in kept]
        artifacts = body.get("inputs", {}).get("artifacts", {})
        for key, source in list(artifacts.items()):
            if source["taskOutputArtifact"]["producerTask"] not in kept:
                del artifacts[key]
    options = emulator.Options(tmp_path)
    options.objects().put(tiny_mnist_dir, DATA)
    file = File(pipeline, {})
    done = emulator.run(file, emulator.parameter_values(file, {}), options, Silent())
    assert done.tasks[kept[-1]].state == emulator.FAILED, done.tasks
    assert said in done.tasks[kept[-1]].message
