"""Model functions of a user's: traced before anything runs, with any metrics and optimizer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.oracle.cnn_mnist import cnn_model_fn
from tests.unit.trainer import own_model
from trainer import tf1, user_functions
from trainer.estimator import EstimatorSpec, LoggingTensorHook, ModeKeys, RunConfig, minimize
from trainer.estimator_model import EstimatorModel, Traced
from trainer.features import ImageShape
from trainer.recipes import Params, resolve
from trainer.user_functions import UserFunctions

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*deprecated.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*will be removed.*:UserWarning"),
]
SHAPE = ImageShape(4, 4)
RANDOM = np.random.default_rng(0)
IMAGES = {"image": RANDOM.random((7, *SHAPE), np.float32)}
LABELS = RANDOM.integers(0, 3, 7)


def params(**overrides: Any) -> Params:
    return resolve("tutorial", **({"batch_size": 4, "precision": "float32"} | overrides))


def build(model_fn: Any, **overrides: Any) -> EstimatorModel:
    functions = UserFunctions(model_fn=model_fn, build_network=own_model.build_network)
    made, _ = functions.build(params(**overrides), SHAPE, 3, 5, RunConfig())
    return made


def spec_of(mode: str, network: keras.Model, features: Any, labels: Any, **fields: Any) -> EstimatorSpec:
    """Softmax regression's, with some fields changed."""
    with tf.GradientTape() as tape:
        logits = network(features["image"])
        predictions = {"classes": tf.argmax(logits, -1), "probabilities": tf.nn.softmax(logits)}
        if mode == ModeKeys.PREDICT:
            return EstimatorSpec(mode, **({"predictions": predictions} | fields))
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    train_op = minimize(tape, loss, network.trainable_variables)
    return EstimatorSpec(mode, **({"loss": loss, "train_op": train_op} | fields))


def metric_fn(features: Any, labels: Any, mode: str, network: keras.Model) -> EstimatorSpec:
    """Reports a metric of each kind in EVAL, and none in TRAIN."""
    if mode != ModeKeys.EVAL:
        return spec_of(mode, network, features, labels)
    classes = tf.argmax(network(features["image"]), -1)
    right = tf.cast(tf.equal(classes, labels), tf.float32)
    mean = keras.metrics.Mean()
    mean.update_state(right)
    error = keras.metrics.Mean()
    error.update_state(1 - right)
    metrics = {
        "accuracy": right,
        "pair": tf.compat.v1.metrics.accuracy(labels, classes),
        "mean": mean,
        "error": error,
    }
    return spec_of(mode, network, features, labels, eval_metric_ops=metrics)


@pytest.mark.slow
def test_each_kind_of_metric_is_over_examples_and_begins_anew() -> None:
    model = build(metric_fn)
    # Seven examples in batches of four: a mean of batches' means would be another number.
    first = model.evaluate(IMAGES, LABELS, batch_size=4, verbose=0, return_dict=True)
    again = model.evaluate(IMAGES, LABELS, batch_size=3, verbose=0, return_dict=True)

    right = np.mean(model.predict(IMAGES, verbose=0)["classes"] == LABELS)
    for measured in (first, again):
        assert set(measured) == {"loss", "accuracy", "pair", "mean", "error"}
        for name in ("accuracy", "pair", "mean"):
            assert measured[name] == pytest.approx(right), name
        assert measured["error"] == pytest.approx(1 - right)


@pytest.mark.slow
def test_training_without_metrics_reports_none() -> None:
    history = build(metric_fn).fit(IMAGES, LABELS, batch_size=4, verbose=0).history
    assert set(history) == {"loss"}


def own_optimizer_fn(features: Any, labels: Any, mode: str) -> EstimatorSpec:
    """TensorFlow 1's style, with an optimizer that has state."""
    logits = tf1.layers.dense(tf.reshape(features["image"], [-1, 16]), 3)
    predictions = {"classes": tf.argmax(logits, -1), "probabilities": tf.nn.softmax(logits)}
    if mode == ModeKeys.PREDICT:
        return EstimatorSpec(mode, predictions=predictions)
    loss = tf1.losses.sparse_softmax_cross_entropy(labels, logits)
    step = tf1.train.get_global_step()
    train_op = tf1.train.MomentumOptimizer(0.1, 0.9).minimize(loss, global_step=step)
    return EstimatorSpec(mode, loss=loss, train_op=train_op if mode == ModeKeys.TRAIN else None)


@pytest.mark.slow
def test_an_optimizer_of_the_functions_own_has_its_state_in_the_checkpoint() -> None:
    def train(model: EstimatorModel) -> None:
        model.fit(IMAGES, LABELS, batch_size=7, shuffle=False, verbose=0)

    model = build(own_optimizer_fn)
    names = {variable.name.partition(":")[0] for variable in model.state()}
    assert names == {
        "global_step",
        "dense/kernel",
        "dense/bias",
        "dense/kernel/Momentum",
        "dense/bias/Momentum",
    }
    train(model)
    saved = [variable.numpy() for variable in model.state()]
    train(model)

    other = build(own_optimizer_fn, seed=3)
    for variable, value in zip(other.state(), saved, strict=True):
        variable.assign(value)
    train(other)

    assert int(other.graph_variables.global_step.numpy()) == 2
    for one, two in zip(model.network.get_weights(), other.network.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def keras_optimizer_fn(features: Any, labels: Any, mode: str, network: keras.Model) -> EstimatorSpec:
    """Brings a Keras optimizer instead of the recipe's."""

    def train_op(_: Any) -> None:
        with tf.GradientTape() as tape:
            logits = network(features["image"])
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        gradients = tape.gradient(loss, [weight.value for weight in network.trainable_variables])
        keras.optimizers.Adam(0.01).apply(gradients, network.trainable_variables)

    return spec_of(mode, network, features, labels, **({} if mode == "infer" else {"train_op": train_op}))


@pytest.mark.slow
def test_a_keras_optimizer_made_in_the_function_has_its_state_in_the_checkpoint() -> None:
    model = build(keras_optimizer_fn)
    before = [variable.numpy() for variable in model.state()]
    model.fit(IMAGES, LABELS, batch_size=7, epochs=2, verbose=0)
    moments = [value for value in model.graph_variables.variables if value.shape.rank]
    assert len(moments) == 4  # two of each of two weights
    assert all(np.any(moment.numpy()) for moment in moments)
    assert len(before) == len(model.state()), "the steps made no more variables than the trace"


def wrong(what: str) -> Any:
    def model_fn(features: Any, labels: Any, mode: str, network: keras.Model) -> EstimatorSpec:
        spec = spec_of(mode, network, features, labels)
        if mode == ModeKeys.EVAL and what == "scalar":
            accuracy = tf.reduce_mean(tf.cast(labels, tf.float32))
            return spec_of(mode, network, features, labels, eval_metric_ops={"acc": accuracy})
        if what == "key":
            return features["x"]  # type: ignore[no-any-return]
        if mode == ModeKeys.TRAIN and what == "train_op":
            return EstimatorSpec(mode, loss=spec.loss)
        if mode == ModeKeys.PREDICT and what == "first dimension":
            return EstimatorSpec(mode, predictions={"classes": tf.constant(1)})
        if mode == ModeKeys.PREDICT and what == "classes":
            return EstimatorSpec(mode, predictions=tf.zeros([3, 3]))
        return spec

    return model_fn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "overrides", "said"),
    [
        ("scalar", {}, r"in mode 'eval': .* tuples, given: .* for key: acc .*: give values per example"),
        (
            "key",
            {},
            r"in mode 'train': KeyError: 'x' \(.*test_user_functions\.py, line \d+\): features has ",
        ),
        ("train_op", {}, r"in mode 'train': Missing train_op \(.*, line \d+\): give train_op=minimize\("),
        ("first dimension", {}, r"predictions\[classes\] must have the batch as its first dimension"),
        ("classes", {}, r"must have 'classes' and 'probabilities': .* there are \['output'\]"),
        (
            "",
            {"keep": "best", "validate_each_epoch": True},
            r"the metric 'accuracy', and eval_metric_ops has",
        ),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, what: str, overrides: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(own_model, "model_fn", wrong(what))
    settings = {
        "model_fn": "tests.unit.trainer.own_model.model_fn",
        "build_network": "tests.unit.trainer.own_model.build_network",
    }
    with pytest.raises(ValueError, match=said) as caught:
        user_functions.check(settings, params(**overrides), SHAPE, 3)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model_fn (tests.unit.trainer.test_user_functions.wrong.")


def failing_network(*_: Any) -> Any:
    raise RuntimeError("no such layer")


@pytest.mark.parametrize(
    ("functions", "said"),
    [
        (
            UserFunctions(build_network=failing_network),
            r"^build_network \(.*failing_network\): RuntimeError: no such layer \(.*\.py, line",
        ),
        (
            UserFunctions(build_network=lambda *_: None),
            r"must return a keras\.Model .* returned a NoneType",
        ),
    ],
)
def test_layers_that_cannot_be_made_are_one_line(functions: UserFunctions, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        functions.build(params(), SHAPE, 3, 5, RunConfig())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda *_: None, "'NoneType' object is not iterable"),
        (lambda params: [params], r"takes 1 positional argument but 2 were given"),
        (lambda *_: [1 / 0], r"ZeroDivisionError: division by zero \(.*, line \d+\)"),
    ],
)
def test_callbacks_that_cannot_be_made_are_one_line(make: Any, said: str) -> None:
    functions = UserFunctions(make_callbacks=make)
    with pytest.raises(ValueError, match=rf"^trainer\.callbacks: .*{said}.*: it is a function of \(params"):
        functions.callbacks(params(), RunConfig(), Traced())


def test_a_module_that_fails_when_it_is_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_module.py").write_text("RATE = 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match=r"^trainer\.model_fn=failing_module\.f: .*ZeroDivisionError: division"
    ):
        UserFunctions.load({"model_fn": "failing_module.f"})


@pytest.mark.slow
def test_what_is_right_passes_in_under_five_seconds() -> None:
    settings = {"model_fn": "tests.oracle.cnn_mnist.cnn_model_fn"}
    before = time.process_time()  # of the processor: other programs do not count
    assert user_functions.check(settings, params(), ImageShape(28, 28), 10) == ("loss", "accuracy")
    assert time.process_time() - before < 5


@pytest.mark.parametrize("setting", ["gpus", "workers"])
def test_a_function_for_tensorflow_1_and_several_replicas_are_refused_at_once(setting: str) -> None:
    settings = {"model_fn": "tests.oracle.cnn_mnist.cnn_model_fn", setting: 2}
    with pytest.raises(
        ValueError, match=rf"trainer\.{setting}=2: a function that makes its variables itself"
    ):
        user_functions.check(settings, params(), ImageShape(28, 28), 10)


@pytest.mark.slow
def test_a_metric_with_a_state_and_several_replicas_are_refused_at_once() -> None:
    settings = {"model_fn": "tests.integration.trainer.talking_model.model_fn", "workers": 2}
    with pytest.raises(ValueError, match=r"trainer\.workers=2: eval_metric_ops: auc keep a state"):
        user_functions.check(settings, params(), SHAPE, 3)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"optimizer_arguments": {"nestorov": False}}, "SGD has no argument 'nestorov'"),
        ({"schedule": "exponential_decay"}, "schedule_arguments: ExponentialDecay: .*decay_rate"),
    ],
)
def test_arguments_of_optimizers_are_checked(overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        user_functions.check({}, params(**overrides), SHAPE, 3)


@pytest.mark.slow
def test_the_tutorials_function_makes_its_variables_once() -> None:
    model, traced = UserFunctions(model_fn=cnn_model_fn).build(
        params(), ImageShape(28, 28), 10, 5, RunConfig()
    )
    assert traced.running == ("accuracy",)
    assert sum(weight.size for weight in model.network.get_weights()) == 3_274_634


@pytest.mark.slow
def test_hooks_and_callbacks_come_along() -> None:
    mine = keras.callbacks.TerminateOnNaN()

    def model_fn(features: Any, labels: Any, mode: str, network: keras.Model) -> EstimatorSpec:
        if mode != ModeKeys.TRAIN:
            return spec_of(mode, network, features, labels)
        step = tf.compat.v1.train.get_global_step()
        hook = LoggingTensorHook({"step_seen": step}, every_n_iter=2)
        return spec_of(mode, network, features, labels, training_hooks=[hook, mine])

    functions = UserFunctions(model_fn, own_model.build_network, lambda params, config: [params, config])
    model, traced = functions.build(params(), SHAPE, 3, 5, RunConfig())
    assert traced.callbacks == (mine,)
    assert [hook.every_n_iter for hook in traced.logged] == [2]
    history = model.fit(IMAGES, LABELS, batch_size=1, verbose=0).history
    assert history["step_seen"] == [7]
    with pytest.raises(ValueError, match=r"trainer\.callbacks: this is no keras\.callbacks\.Callback"):
        functions.callbacks(params(), RunConfig(), traced)
