"""Two workers, processes of one machine or pods, go on where one process was and end with its weights.

All of them see the data in /proc/self/cwd, which has one name and is each process's own: so the pods, which
have a folder each, see of the object store what they have got, under the same paths, as on a cluster.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeflow import spec
from kubeflow.emulator.launcher import substituted
from tests.integration.trainer.test_long_runs import RECIPE, logits, metrics, train
from tests.training_data import Dataset
from tests.unit.kubeflow import pods
from tests.unit.kubeflow.conftest import REPOSITORY, Compile, compiled
from tests.unit.kubeflow.kubernetes_api import Kubernetes
from trainer.features import CHECKPOINT_FOLDER, KEPT_FOLDER

__all__ = ["compiled"]
ROOT = "/proc/self/cwd"
BUCKET, LOCAL = "minio://bucket", f"{ROOT}/minio/bucket"
ARTIFACTS = {
    "inputs": {"examples": "Examples", "schema": "Schema", "transform_graph": "TransformGraph"},
    "outputs": {"model": "Model", "model_run": "ModelRun"},
}


def settings(workers: int) -> dict[str, Any]:
    # Two workers of 20 images each are one of 40; their learning rates are scaled, so scale them back.
    rates = {"learning_rate": 0.02 / workers, "fine_tune_learning_rate": 0.02 / workers}
    plain = {"train_steps": 14, "shift": 0, "dropout": 0.0, "weight_average": 0.0}
    return {
        "recipe": "tutorial",
        "overrides": {**RECIPE, **plain, **rates, "batch_size": 40 // workers},
        "build_network": "tests.unit.trainer.own_model.build_network",
        "run_config": {"save_checkpoints_steps": 3, "keep_checkpoint_max": 9},
    }


def arguments(output: str, workers: int) -> dict[str, Any]:
    return {
        "train_files": [f"{LOCAL}/examples/Split-train/*"],
        "eval_files": [f"{LOCAL}/examples/Split-validation/*"],
        "train_steps": 0,
        "eval_steps": 0,
        "transform_output": f"{LOCAL}/transform_graph",
        "transform_graph_path": f"{LOCAL}/transform_graph",
        "schema_path": f"{LOCAL}/schema/schema.pbtxt",
        "serving_model_dir": f"{ROOT}/{output}/model/Format-Serving",
        # Executions' artifacts lie side by side, as TFX lays them.
        "model_run_dir": f"{ROOT}/{output}/model_run/1",
        "custom_config": settings(workers) | {"workers": workers},
    }


@pytest.fixture(scope="module", autouse=True)
def pod(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the first pod, where the launcher has put the inputs; its own validation split."""
    folder = tmp_path_factory.mktemp("pod")
    bucket = folder / "minio/bucket"
    for split in ("train", "validation"):
        (bucket / "examples" / f"Split-{split}").mkdir(parents=True)
        for file in digits.folder.glob("train-*"):
            shutil.copy(file, bucket / "examples" / f"Split-{split}")
    shutil.copytree(digits.folder / "transform_graph", bucket / "transform_graph")
    (bucket / "schema").mkdir()
    shutil.copy(digits.folder / "schema.pbtxt", bucket / "schema")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def alone(pod: Path) -> dict[str, Any]:  # noqa: ARG001
    """Trained by one process."""
    given = arguments("alone", 1)
    train(given)
    return given


@pytest.fixture(scope="module")
def expected(alone: dict[str, Any], digits: Dataset) -> np.ndarray:
    """What its model answers."""
    return logits(alone, digits)


def killed_at_step_3(alone: dict[str, Any], folder: str) -> None:
    """What an execution leaves that ended there, in the folder of its checkpoints."""
    Path(folder).mkdir(parents=True)
    shutil.copy(Path(alone["model_run_dir"], KEPT_FOLDER, "checkpoint-3.npz"), folder)


def assert_same(
    given: dict[str, Any], alone: dict[str, Any], digits: Dataset, expected: np.ndarray
) -> None:
    assert metrics(given)["resumed_at_step"] == 3
    assert metrics(given)["params"] == metrics(alone)["params"]
    measured = [
        [metrics(each)[f"validation_{name}"] for name in ("loss", "accuracy")] for each in (alone, given)
    ]
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)
    np.testing.assert_allclose(logits(given, digits), expected, atol=1e-5)
    kept = [
        [path.name for path in Path(each["model_run_dir"], KEPT_FOLDER).iterdir()]
        for each in (alone, given)
    ]
    assert sorted(kept[0]) == sorted(kept[1])


def assert_one_told(said: list[str], given: dict[str, Any]) -> None:
    """Both have the weights; the first alone tells of its steps."""
    weights = [line.split()[-1] for line in said if "weights: " in line]
    assert weights == [metrics(given)["weights_sha256"]] * 2
    assert len([line for line in said if "step 14 of 14" in line]) == 1


def test_processes(
    alone: dict[str, Any], digits: Dataset, expected: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    given = arguments("processes", 2)
    killed_at_step_3(alone, f"{given['model_run_dir']}/{CHECKPOINT_FOLDER}")
    caplog.set_level(logging.INFO)
    train(given)
    assert_same(given, alone, digits, expected)
    assert_one_told([record.getMessage() for record in caplog.records], given)


def command(file: spec.File) -> list[str]:
    """What the launcher runs in the step's pod."""
    message: dict[str, Any] = {
        side: {
            "artifacts": {
                name: {
                    "artifacts": [
                        {
                            "name": "1",
                            "uri": f"{BUCKET}/{name}",
                            "metadata": {"split_names": '["train", "validation"]'} if "x" in name else {},
                            "type": {"instanceSchema": f"title: tfx.{kind}\ntype: object\n"},
                        }
                    ]
                }
                for name, kind in artifacts.items()
            }
        }
        for side, artifacts in ARTIFACTS.items()
    }
    message["outputs"]["outputFile"] = f"{LOCAL}/output.json"
    given = settings(2) | {"checkpoint_dir": f"{ROOT}/volume"}
    # What a run may change comes from its parameters.
    of_run = {name: given["overrides"][name] for name in ("train_steps", "learning_rate", "batch_size")}
    message["inputs"]["parameterValues"] = {
        **dict(file.values("Trainer")),
        **{f"run_{name}": value for name, value in of_run.items()},
        "run_recipe": given["recipe"],
        "custom_config": json.dumps(given),
    }
    container = file.executor("Trainer")["container"]
    made = [substituted(part, message) for part in (*container["command"], *container["args"])]
    return [sys.executable, *made[1:]]


def test_pods(
    pod: Path,
    alone: dict[str, Any],
    digits: Dataset,
    expected: np.ndarray,
    tmp_path: Path,
    compiled: Compile,
) -> None:
    """The compiled step, and the Job that it makes; see kubeflow.worker_pods."""
    kept = f"{alone['model_run_dir']}/{KEPT_FOLDER}/checkpoint-3.npz"
    with np.load(kept) as content:
        identity = json.loads(str(content["about"]))["identity"]
    killed_at_step_3(alone, f"volume/{identity}")
    file = spec.read(compiled("kubeflow.nodes.Trainer.workers=2").to_yaml())
    own = pods.of(file, "Trainer")
    own["metadata"] |= {"name": "mnist-x-impl-7", "uid": "0b6a4f5e-8c3d-4a9b-9a1e-5d1f2c3b4a59"}
    own["status"] = {"podIP": "127.0.0.1"}
    machine = {"PYTHONPATH": str(REPOSITORY), "LAUNCHER_ROOT": ROOT, "TMPDIR": str(tmp_path)}
    with Kubernetes(tmp_path, own, environment=machine) as here:
        cluster = {"KUBECONFIG": str(here.kubeconfig), "KFP_POD_NAME": own["metadata"]["name"]}
        done = subprocess.run(
            command(file), env=os.environ | machine | cluster, capture_output=True, text=True, check=False
        )
        said = [done.stdout, done.stderr, here.log(0).read_text() if here.job else ""]
        assert done.returncode == 0, "\n".join(said)
        assert here.deleted

    folder = pod / "minio/bucket"
    given = {
        "model_run_dir": str(folder / "model_run"),
        "serving_model_dir": f"{folder}/model/Format-Serving",
    }
    assert_same(given, alone, digits, expected)
    assert_one_told("\n".join(said).splitlines(), given)
    assert "apache_beam" not in said[0] + said[2]
    output = json.loads((folder / "output.json").read_text())
    assert output["artifacts"]["model"]["artifacts"][0]["uri"] == f"{BUCKET}/model"
    assert not list(folder.glob(".step-*"))
    # The other pod has written no model.
    found = (tmp_path / "worker-0").rglob("saved_model.pb")
    assert [path.parent.name for path in found] == ["transform_fn"]
