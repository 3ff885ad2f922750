"""The compiled pipeline, really run: every container's command is a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from components.image_example_gen.sources import idx
from components.shared import verdict
from kubeflow import spec
from kubeflow.compile import compile_pipeline
from kubeflow.emulator import run as emulator
from kubeflow.emulator.server import serving
from kubeflow.settings import load
from kubeflow.spec import File
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
)
UP_TO_THE_TRAINER = (
    "Images",
    "CuratedSchema",
    "ImageExampleGen",
    "StatisticsGen",
    "ExampleValidator",
    "DataGate",
    "Transform",
    "Trainer",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kubeflow")


@pytest.fixture(scope="module")
def cluster(store: Path, tiny_mnist_dir: Path) -> Iterator[Cluster]:
    """The emulator behind Kubeflow's API, with the digits in its bucket, and the file of an example."""
    package = store / "mnist.yaml"
    compiled = checks.mnist(
        *("compile", "-o", package, "--config", REPOSITORY / "kubeflow" / "configs" / "example.toml"),
        *("--data-dir", tiny_mnist_dir),
        *(part for setting in SETTINGS for part in ("--set", setting)),
    )
    assert compiled.returncode == 0, compiled.stderr
    options = emulator.Options(store)
    options.objects().put(tiny_mnist_dir, DATA)
    with serving(options) as host:
        yield Cluster(host, package, {"model_name": MODEL}, interval="1s", timeout_s=500)


@pytest.mark.slow
def test_the_whole_pipeline_runs(cluster: Cluster, store: Path, tiny_mnist_dir: Path) -> None:
    models = store / "volumes" / "mnist-models" / MODEL
    files = idx.find_files(tiny_mnist_dir)
    Nearest(*next(idx.stream(files.train_images, files.train_labels, TINY_TRAIN, None))).save(models / "1")

    checks.every_node_runs(cluster)

    version = models / max(path.name for path in models.iterdir())
    assert version.name != "1"
    (verdict_file,) = store.rglob("verdict.json")
    judged = verdict.from_json(verdict_file.read_text())
    assert judged.baseline is not None
    assert judged.baseline.version == "1"
    for log in store.rglob("executor-logs-0"):
        lines = log.read_text().splitlines()
        assert len(lines) < 60, f"{log}: {len(lines)} lines"
        assert not [line for line in lines if re.search("cuda|CUDA|cuInit", line)]


@pytest.mark.slow
def test_the_pushed_model_answers(store: Path, tiny_mnist_dir: Path) -> None:
    """After the test above, as a server on the same volume serves it."""
    models = store / "volumes" / "mnist-models" / MODEL
    with a_server(models) as address:
        while checks.served_version(address, MODEL) < 0:
            time.sleep(0.5)
        checks.the_served_model_answers(address, MODEL, tiny_mnist_dir, at_least=0.2)  # chance is 0.1


@pytest.mark.slow
def test_a_schedule_trains_nothing_while_the_data_stay(cluster: Cluster, store: Path) -> None:
    """After the tests above: the model is in production itself by now, so it is not pushed again."""
    before = sorted((store / "volumes" / "mnist-models" / MODEL).iterdir())
    checks.a_schedule_trains_nothing_again(cluster)
    assert sorted((store / "volumes" / "mnist-models" / MODEL).iterdir()) == before


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
def test_a_gate_of_the_run_refuses_the_model(cluster: Cluster, store: Path) -> None:
    """After the test above: training comes from the cache, the Evaluator has another gate."""
    before = list((store / "volumes" / "mnist-models" / MODEL).iterdir())
    checks.a_gate_refuses(cluster)
    assert list((store / "volumes" / "mnist-models" / MODEL).iterdir()) == before


@pytest.mark.slow
def test_another_fingerprint_is_no_stale_hit(cluster: Cluster) -> None:
    """After the tests above: the data are what they were, but the run asks for others."""
    checks.a_wrong_fingerprint_fails(cluster)
    assert "the data in minio://" in cluster.client.get_run(cluster.runs[-1]).error.message


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_preempted_trainer_goes_on_from_its_checkpoint(
    store: Path, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    """After the tests above: what comes before the Trainer is in the cache.

    Its process group is ended as soon as a checkpoint is on the volume, as Argo ends a preempted pod.
    """
    package = tmp_path / "mnist.yaml"
    example = (REPOSITORY / "kubeflow" / "configs" / "example.toml").read_text()
    trainer = 'retries = 1\nvolumes = [{ claim = "work", path = "/work" }]\n'
    config = tmp_path / "with-a-volume.toml"
    config.write_text(example.replace("[kubeflow.nodes.Trainer]\n", f"[kubeflow.nodes.Trainer]\n{trainer}"))
    compiled = checks.mnist(
        *("compile", "-o", package, "--config", config, "--data-dir", tiny_mnist_dir),
        *(part for setting in SETTINGS for part in ("--set", setting)),
        *("--set", "trainer.run_config.save_checkpoints_steps=10"),
    )
    assert compiled.returncode == 0, compiled.stderr
    file = spec.read_file(package)
    for node in set(file.tasks) - set(UP_TO_THE_TRAINER):
        del file.tasks[node]
    options = emulator.Options(store, file.pipeline_root)
    values = {"train_steps": 1000, "batch_size": 32, "accuracy": 0.0, "class_accuracy": 0.0}

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(end_the_trainer, store)
        done = emulator.run(file, emulator.parameter_values(file, values), options, Silent())
        step = killing.result()

    assert done.succeeded, done.tasks
    assert {done.tasks[node].state for node in UP_TO_THE_TRAINER[1:-1]} == {emulator.CACHED}
    assert done.tasks["Trainer"].attempts == 2
    first, second = (
        (store / "objects/minio/mlpipeline/v2/artifacts/mnist/mnist" / done.run_id / "Trainer").rglob(
            f"executor-logs-{attempt}"
        )
        for attempt in (0, 1)
    )
    assert "terminated; nothing is handed on" in next(first).read_text()
    (went_on,) = re.findall(r"going on from step (\d+) of an earlier run", next(second).read_text())
    assert step <= int(went_on) < 1000
    assert not list((store / "volumes" / "work").rglob("checkpoint-*")), "the run is over"


def end_the_trainer(store: Path) -> int:
    """End the Trainer's process group once a checkpoint is there; returns its step."""
    deadline = time.monotonic() + 300
    while not (found := list((store / "volumes" / "work").rglob("checkpoint-*.npz"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cwd").readlink().match(f"{store}/pods/*/Trainer"):
                os.killpg(os.getpgid(int(process.name)), signal.SIGTERM)
                break
    return min(int(path.stem.rpartition("-")[2]) for path in found)


REPAIRS = {
    # TFX looks for a title in a schema that is not there.
    "with_types": ("ImageExampleGen", "AttributeError: 'NoneType' object has no attribute 'get'"),
    # The driver's artifact type is none of TFX's.
    "without_drivers_outputs": ("CuratedSchema", "Could not import system.Artifact"),
    # What was downloaded is not where the executor looks.
    "to_local": ("ImageExampleGen", "minio:/mlpipeline/data/mnist: there is no such folder"),
    # Nothing is uploaded, which shows in the next step.
    "to_remote": ("StatisticsGen", "failed to parse bucketConfig"),
}


@pytest.mark.slow
@pytest.mark.parametrize("repair", REPAIRS)
def test_without_a_repair_the_step_fails_as_on_the_cluster(
    repair: str, tmp_path: Path, tiny_mnist_dir: Path
) -> None:
    node, said = REPAIRS[repair]
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
    kept = ("Images", "CuratedSchema", "ImageExampleGen", "StatisticsGen")
    pipeline["root"]["dag"]["tasks"] = {name: tasks[name] for name in kept}
    options = emulator.Options(tmp_path)
    options.objects().put(tiny_mnist_dir, DATA)
    file = File(pipeline, {})
    done = emulator.run(file, emulator.parameter_values(file, {}), options, Silent())
    assert done.tasks[node].state == emulator.FAILED, done.tasks
    assert said in done.tasks[node].message
