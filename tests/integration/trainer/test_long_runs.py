"""Runs that are killed, stopped early, and spread over replicas; workers are in test_workers.

What is killed or needs devices of its own has a process of its own; to import TensorFlow and TFX takes
longer than such a training, so the others have none.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from tests.training_data import Dataset
from trainer.features import CHECKPOINT_FOLDER, KEPT_FOLDER
from trainer.train import run_fn

# All that is random or kept between steps: dropout, shifts, batch norm's means, Adam's, averaged weights.
RECIPE = {
    "batch_size": 40,
    "epochs": None,
    "train_steps": 60,
    "precision": "float32",
    "shift": 1,
    "dropout": 0.2,
    "weight_average": 0.9,
    "validate_each_epoch": True,
    "keep": "best",
}


def arguments(data: Dataset, output: Path, settings: dict[str, Any], **overrides: Any) -> dict[str, Any]:
    given = vars(data.fn_args(output, **{**RECIPE, **overrides}))
    # Executions' artifacts lie side by side, as TFX lays them.
    given["model_run_dir"] = str(output.parent / "model_run" / output.name)
    given["custom_config"] |= settings
    return {name: value for name, value in given.items() if value is not None}


def start(given: dict[str, Any], folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "arguments.json"
    file.write_text(json.dumps(given))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.trainer.run_training", str(file), *options],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def train(given: dict[str, Any]) -> None:
    run_fn(FnArgs(**given))


def metrics(given: dict[str, Any]) -> dict[str, Any]:
    return json.loads(Path(given["model_run_dir"], "metrics.json").read_text())


def logits(given: dict[str, Any], data: Dataset) -> np.ndarray:
    saved = tf.saved_model.load(given["serving_model_dir"])
    return saved.signatures["pixels"](tf.constant(data.images))["logits"].numpy()


@pytest.fixture(scope="module")
def undisturbed(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The arguments of a run that nothing happened to."""
    given = arguments(digits, tmp_path_factory.mktemp("undisturbed") / "1", {})
    train(given)
    return given


@pytest.fixture(scope="module")
def killed(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, its seventh execution, that was killed in the third of its six epochs."""
    outputs = tmp_path_factory.mktemp("killed")
    given = arguments(digits, outputs / "7", {"run_config": {"save_checkpoints_secs": 0.0}})
    folder = Path(given["model_run_dir"], CHECKPOINT_FOLDER)
    process = start(given, outputs)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        # Epochs have ten steps: the middle of the third.
        if any(int(path.stem.rpartition("-")[2]) >= 24 for path in folder.glob("checkpoint-*.npz")):
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not Path(given["serving_model_dir"]).exists()
    return outputs


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(
    digits: Dataset, undisturbed: dict[str, Any], killed: Path, tmp_path: Path
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    again = arguments(digits, tmp_path / "8", {})
    train(again)

    measured, expected = metrics(again), metrics(undisturbed)
    assert 24 <= measured["resumed_at_step"] < 60
    assert measured["steps"] == 60
    assert len(measured["history"]["val_accuracy"]) == 6
    assert measured["history"]["val_loss"] == pytest.approx(expected["history"]["val_loss"], abs=1e-3)
    np.testing.assert_allclose(logits(again, digits), logits(undisturbed, digits), atol=1e-3)
    assert not list(tmp_path.glob(f"model_run/*/{CHECKPOINT_FOLDER}")), "no longer needed"
    assert [path.name for path in tmp_path.glob(f"model_run/*/{KEPT_FOLDER}/*")] == ["checkpoint-60.npz"]


def test_the_checkpoint_of_another_training_is_left_alone(
    digits: Dataset, killed: Path, tmp_path: Path
) -> None:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    given = arguments(digits, tmp_path / "8", {}, train_steps=12, seed=9)
    train(given)
    assert metrics(given)["resumed_at_step"] == 0
    assert list(tmp_path.glob(f"model_run/7/{CHECKPOINT_FOLDER}/*.npz"))


def test_a_broken_checkpoint_costs_time_and_no_more(digits: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "model_run" / "0" / CHECKPOINT_FOLDER
    folder.mkdir(parents=True)
    (folder / "checkpoint-5.npz").write_bytes(b"PK\x03\x04 and no more")
    given = arguments(digits, tmp_path / "1", {}, train_steps=12)
    train(given)
    assert metrics(given)["steps"] == 12


def test_a_function_for_tensorflow_1_is_refused_on_two_replicas(digits: Dataset, tmp_path: Path) -> None:
    function = "tests.oracle.cnn_mnist.cnn_model_fn"
    given = arguments(digits, tmp_path / "1", {"model_fn": function}, train_steps=2)
    process = start(given, tmp_path, "2")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith(f"ValueError: model_fn ({function}): a function that makes its variables itself")
    assert "give it an argument `network`" in last
    assert not Path(given["serving_model_dir"]).exists()


def test_two_replicas_in_one_process_end_where_one_does(digits: Dataset, tmp_path: Path) -> None:
    """Without batch norm, which sees each replica's share, and without anything random."""
    plain = {"train_steps": 6, "shift": 0, "dropout": 0.0, "weight_average": 0.0}
    results, measured = [], []
    for replicas in (1, 2):
        # Two replicas of 20 images each are one of 40; their learning rate is scaled, so scale it back.
        scaled = {"batch_size": 40 // replicas, "learning_rate": 0.02 / replicas}
        given = arguments(digits, tmp_path / str(replicas), {}, **plain, **scaled)
        given["custom_config"]["recipe"] = "tutorial"
        if replicas == 1:
            train(given)
        else:
            finish(start(given, tmp_path / "files", str(replicas)))
        assert metrics(given)["params"]["batch_size"] == 40
        assert metrics(given)["params"]["learning_rate"] == pytest.approx(0.02)
        results.append(logits(given, digits))
        measured.append([metrics(given)[f"validation_{name}"] for name in ("loss", "accuracy")])
    assert measured[0] == pytest.approx(measured[1], rel=1e-4)
    np.testing.assert_allclose(results[0], results[1], atol=1e-4)


def test_training_stops_when_it_gets_no_better_and_keeps_the_best(digits: Dataset, tmp_path: Path) -> None:
    given = digits.fn_args(
        tmp_path,
        **{**RECIPE, "weight_average": 0.0, "train_steps": 400, "patience": 2, "learning_rate": 0.05},
    )
    run_fn(given)
    measured = json.loads((tmp_path / "model_run" / "metrics.json").read_text())
    accuracy = measured["history"]["val_accuracy"]
    best = int(np.argmax(accuracy))
    assert len(accuracy) == best + 3 < 40
    assert measured["validation_accuracy"] == accuracy[best]
    saved = tf.saved_model.load(str(tmp_path / "Format-Serving"))
    classes = saved.signatures["pixels"](tf.constant(digits.images))["classes"].numpy()
    # The validation split of this data set is its training split.
    assert np.mean(classes == digits.labels) == pytest.approx(accuracy[best], abs=0.005)
