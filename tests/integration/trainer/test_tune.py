"""The search of `mnist tune`: what its trials train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras_tuner
import pytest
from tfx.components.trainer.fn_args_utils import FnArgs

from tests.training_data import Dataset
from tests.unit.trainer import own_model
from trainer.estimator import EstimatorSpec
from trainer.recipes import resolve
from trainer.tune import tuner_fn

QUICK = {"batch_size": 30, "precision": "float32", "shift": 0, "train_steps": 3}
OWN = {
    "model_fn": "tests.integration.trainer.test_tune.noting_fn",
    "build_network": "tests.unit.trainer.own_model.build_network",
}
seen: list[tuple[float, str]] = []


def noting_fn(features: Any, labels: Any, mode: str, params: Any, network: Any) -> EstimatorSpec:
    """Notes what each trial gives it: the search's learning rate, and a hyper-parameter of its own."""
    seen.append((params["learning_rate"], params["margin"]))
    return own_model.model_fn(features, labels, mode, params, network)


def without_accuracy_fn(features: Any, labels: Any, mode: str, params: Any, network: Any) -> EstimatorSpec:
    spec = own_model.model_fn(features, labels, mode, params, network)
    return EstimatorSpec(mode, spec.predictions, spec.loss, spec.train_op)


def search(
    data: Dataset, folder: Path, settings: dict[str, Any], **overrides: Any
) -> keras_tuner.BayesianOptimization:
    arguments: FnArgs = data.fn_args(folder, **{**QUICK, **overrides})
    arguments.working_dir = str(folder)
    arguments.custom_config |= settings | {"trials": 2}
    tuner = tuner_fn(arguments).tuner
    tuner.search()
    return tuner


def test_the_first_trial_is_the_recipe(stripes: Dataset, tmp_path: Path) -> None:
    tuner = search(stripes, tmp_path, {})
    first, second = (tuner.oracle.trials[key].hyperparameters.values for key in tuner.oracle.start_order)
    recipe = resolve("fast", **QUICK)
    assert {name: recipe[name] for name in first} == first
    assert {"learning_rate", "batch_size", "dropout", "weight_decay"} <= set(first)
    assert second != first


def test_a_function_of_ones_own_is_what_is_searched_for(stripes: Dataset, tmp_path: Path) -> None:
    seen.clear()
    tuner = search(stripes, tmp_path, OWN, params={"margin": "wide"})
    rates = {
        tuner.oracle.trials[key].hyperparameters.get("learning_rate") for key in tuner.oracle.start_order
    }
    assert len(rates) == 2
    assert {rate for rate, _ in seen} >= rates
    assert {margin for _, margin in seen} == {"wide"}


def test_a_function_that_does_not_report_accuracy_cannot_be_searched_for(
    stripes: Dataset, tmp_path: Path
) -> None:
    settings = OWN | {"model_fn": "tests.integration.trainer.test_tune.without_accuracy_fn"}
    with pytest.raises(Exception, match="goes by the metric 'accuracy'"):
        search(stripes, tmp_path, settings)
