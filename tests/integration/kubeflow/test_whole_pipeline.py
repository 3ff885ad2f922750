"""The compiled pipeline, really run: every container's command is a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.image_example_gen.sources import idx
from components.shared import verdict
from kubeflow.compile import compile_pipeline
from kubeflow.emulator import run as emulator
from kubeflow.settings import load
from kubeflow.spec import File
from tests.conftest import TINY_TRAIN
from tests.unit.components.nearest import Nearest
from tests.unit.kubeflow.conftest import REPOSITORY
from tests.unit.kubeflow.emulator.test_run import Silent

MNIST = str(Path(sys.executable).with_name("mnist"))
DATA = "minio://mlpipeline/data/mnist"
PARAMETERS = {
    "train_steps": "20",
    "batch_size": "32",
    "accuracy": "0",
    "class_accuracy": "0",
    "model_name": "digits",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kubeflow")


@pytest.fixture(scope="module")
def file(store: Path, tiny_mnist_dir: Path) -> Path:
    path = store / "mnist.yaml"
    example = REPOSITORY / "kubeflow" / "configs" / "example.toml"
    settings = {
        "kubeflow.node.retries": 0,
        "gates.calibration_error": 1,
        "gates.accuracy_drop": 1,
        "gates.class_accuracy_drop": 1,
    }
    options = ["--data-dir", tiny_mnist_dir]
    options += [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    subprocess.run([MNIST, "compile", "-o", path, "--config", example, *options], check=True)
    return path


def emulate(file: Path, store: Path, *more: str, **parameters: str) -> subprocess.CompletedProcess[str]:
    given = [f"--param={name}={value}" for name, value in (PARAMETERS | parameters).items()]
    return subprocess.run(
        [MNIST, "kubeflow", "emulate", file, "--store", store, *given, *more],
        capture_output=True,
        text=True,
        check=False,
    )


def states(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if line.endswith(" s")}


def test_the_whole_pipeline_runs_and_the_pushed_model_answers(
    file: Path, store: Path, tiny_mnist_dir: Path
) -> None:
    models = store / "volumes" / "mnist-models" / "digits"
    files = idx.find_files(tiny_mnist_dir)
    Nearest(*next(idx.stream(files.train_images, files.train_labels, TINY_TRAIN, None))).save(models / "1")
    done = emulate(file, store, f"--put={DATA}={tiny_mnist_dir}")
    assert done.returncode == 0, done.stdout + done.stderr
    first = states(done)
    assert set(first.values()) == {"done"}
    assert {"Images", "Trainer", "Evaluator", "Pusher"} <= set(first)

    version = models / max(path.name for path in models.iterdir())
    assert version.name != "1"
    (verdict_file,) = store.rglob("verdict.json")
    judged = verdict.from_json(verdict_file.read_text())
    assert judged.baseline is not None
    assert judged.baseline.version == "1"
    ask = REPOSITORY / "tests" / "e2e" / "ask_model.py"
    answers = subprocess.run(
        [sys.executable, ask, version, tiny_mnist_dir], capture_output=True, text=True, check=True
    )
    by_signature = {line.split()[0]: line.split()[1:] for line in answers.stdout.splitlines()}
    assert set(by_signature) == {"pixels", "examples", "serving_default"}
    assert len({tuple(classes) for classes in by_signature.values()}) == 1
    labels = np.frombuffer((tiny_mnist_dir / "t10k-labels-idx1-ubyte").read_bytes()[8:], np.uint8)
    assert np.mean(np.array(by_signature["pixels"], int) == labels) > 0.2  # 20 steps; chance is 0.1

    again = emulate(file, store)
    assert again.returncode == 0, again.stderr
    cached = {node for node, state in states(again).items() if state == "cached"}
    # Importers never are; what is in production is looked at, compared with, decided on and told each time.
    looking = {"BaselineModel", "Evaluator", "Pusher", "ReportGen"}
    assert first.keys() - cached == {"Images"} | looking
    # The model is in production itself by now, so it is not pushed again.
    assert max(models.iterdir()).name == version.name


def test_a_gate_of_the_run_refuses_the_model(file: Path, store: Path) -> None:
    """After the test above: training comes from the cache, the Evaluator has another gate."""
    before = list((store / "volumes" / "mnist-models" / "digits").iterdir())
    done = emulate(file, store, accuracy="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done)["Trainer"] == "cached"
    assert states(done)["Evaluator"] == states(done)["Pusher"] == "done"
    assert list((store / "volumes" / "mnist-models" / "digits").iterdir()) == before


def test_another_fingerprint_is_no_stale_hit(file: Path, store: Path) -> None:
    """After the tests above: the data are what they were, but the run asks for others."""
    done = emulate(file, store, data_fingerprint="0" * 64)
    assert done.returncode == 1
    assert states(done)["ImageExampleGen"] == "failed"
    assert "the data in" in done.stderr.splitlines()[-1]


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
    spec = compile_pipeline(config, kubeflow, entrypoint=entrypoint).pipeline_spec
    tasks = spec["root"]["dag"]["tasks"]
    kept = ("Images", "CuratedSchema", "ImageExampleGen", "StatisticsGen")
    spec["root"]["dag"]["tasks"] = {name: tasks[name] for name in kept}
    options = emulator.Options(tmp_path)
    options.objects().put(tiny_mnist_dir, DATA)
    file = File(spec, {})
    done = emulator.run(file, emulator.parameter_values(file, {}), options, Silent())
    assert done.tasks[node].state == emulator.FAILED, done.tasks
    assert said in done.tasks[node].message
