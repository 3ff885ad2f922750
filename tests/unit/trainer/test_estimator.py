"""EstimatorSpec beside the real tf.estimator's: each argument set, as recorded (see tests/oracle)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import pytest
import tensorflow as tf

from tests.oracle import cases
from trainer.estimator import EstimatorSpec, LoggingTensorHook, ModeKeys
from trainer.export_outputs import ClassificationOutput, PredictOutput, RegressionOutput
from trainer.hints import hint
from trainer.model_function import ModelFunction

RECORDED = json.loads((Path(cases.__file__).parent / "estimator_oracle.json").read_text())
OURS = cases.outcomes(
    SimpleNamespace(
        tf=tf.compat.v1,
        EstimatorSpec=EstimatorSpec,
        PredictOutput=PredictOutput,
        ClassificationOutput=ClassificationOutput,
        RegressionOutput=RegressionOutput,
    )
)
NO_SESSION = (
    "All hooks must be keras.callbacks.Callback or trainer.estimator.LoggingTensorHook instances (a "
    "SessionRunHook needs a session), given: 3"
)
# Where ours is another on purpose: there are no sessions, and a mode that nobody calls for is a mistake.
DIFFERENT = {
    "a hook that is a number": {"error": "TypeError", "message": NO_SESSION},
    "an evaluation hook that is a number": {"error": "TypeError", "message": NO_SESSION},
    "a prediction hook that is a number": {"error": "TypeError", "message": NO_SESSION},
    "a scaffold that is a number": {
        "error": "TypeError",
        "message": "scaffold sets up a session, and there is none: leave it out, given: 3",
    },
    "an unknown mode": {"error": "ValueError", "message": "Invalid mode: 'test'."},
}


def test_the_record_is_of_these_cases() -> None:
    assert set(RECORDED["specs"]) == set(OURS)
    assert len(OURS) >= 40


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_spec_is_what_the_real_one_is(name: str) -> None:
    assert OURS[name] == DIFFERENT.get(name, RECORDED["specs"][name])


def test_every_refusal_of_a_spec_says_what_to_do_or_what_it_was_given() -> None:
    refusals = [found["message"] for found in OURS.values() if "message" in found]
    assert len(refusals) >= 20
    # A constructor of an export output says itself what it takes.
    telling = ("Cannot create", "Classification ", "Regression output", "Prediction output", "scaffold")
    telling += ("prediction_hooks", "Invalid mode", "Multiple `export_outputs`")
    assert [message for message in refusals if not hint(message) and not message.startswith(telling)] == []


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_what_is_another_is_not_the_same(name: str) -> None:
    assert RECORDED["specs"][name] != DIFFERENT[name]


def test_modes_have_the_values_of_tf_estimator() -> None:
    assert (ModeKeys.TRAIN, ModeKeys.EVAL, ModeKeys.PREDICT) == ("train", "eval", "infer")


def test_what_only_ours_takes() -> None:
    values = tf.constant([0.0, 1.0])
    hook = LoggingTensorHook({"loss": tf.constant(1.0)}, every_n_iter=2)

    def train_op(optimizer: Any) -> None:
        del optimizer

    spec = EstimatorSpec(
        "train",
        loss=tf.constant(1.0),
        train_op=train_op,
        eval_metric_ops={"accuracy": values, "auc": keras.metrics.AUC()},
        training_hooks=[hook, keras.callbacks.TerminateOnNaN()],
    )
    assert list(spec.eval_metric_ops) == ["accuracy", "auc"]
    assert spec.training_hooks is not None
    assert hook in spec.training_hooks
    with pytest.raises(ValueError, match=r"shows scalar tensors; 'x' is"):
        LoggingTensorHook({"x": values}, every_n_iter=2)


def _without_features(labels: Any, mode: str) -> None:
    del labels, mode


def _with_another(features: Any, session: Any) -> None:
    del features, session


@pytest.mark.parametrize(
    ("function", "recorded", "argument"),
    [(_without_features, "without features", ""), (_with_another, "with another", "['session']")],
)
def test_arguments_are_refused_in_the_real_ones_words(function: Any, recorded: str, argument: str) -> None:
    words = RECORDED["model_fn"][recorded].partition(") ")[2]
    with pytest.raises(ValueError, match=r"^model_fn \(tests\.unit\.") as caught:
        ModelFunction(function)
    assert str(caught.value).endswith(words.replace("['network']", argument))


def test_arguments_are_given_by_name_and_params_as_a_copy() -> None:
    seen: dict[str, Any] = {}
    x, labels = {"image": tf.zeros([1])}, tf.ones([1])

    def model_fn(params: Any, features: Any, mode: str, config: Any) -> EstimatorSpec:
        seen.update(features=features, mode=mode, config=config)
        params["own"].append(3)
        return EstimatorSpec(mode, predictions=features)

    given = {"own": [1, 2]}
    spec = ModelFunction(model_fn)(x, labels, ModeKeys.PREDICT, given)
    assert spec.predictions == x
    assert (seen["features"], seen["mode"]) == (x, "infer")
    assert seen["config"].is_chief
    assert given == {"own": [1, 2]}
