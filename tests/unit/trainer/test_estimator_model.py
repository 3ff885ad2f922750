"""The Keras model that runs a model function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.estimator import EstimatorSpec, ModeKeys, minimize
from trainer.estimator_model import EstimatorModel
from trainer.model_function import ModelFunction


def linear_network() -> keras.Model:
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))


def linear_model_fn(
    features: Mapping[str, tf.Tensor],
    labels: tf.Tensor | None,
    mode: str,
    params: Any,
    network: keras.Model,
) -> EstimatorSpec:
    """Linear regression: a model_fn that has nothing to do with images."""
    with tf.GradientTape() as tape:
        outputs = network(features["x"])[:, 0]
        if mode == ModeKeys.PREDICT:
            return EstimatorSpec(mode, {"y": outputs})
        loss = tf.reduce_mean((outputs - labels) ** 2)
    return EstimatorSpec(
        mode,
        {"y": outputs},
        loss,
        minimize(tape, loss, network.trainable_variables),
        {"error": tf.abs(outputs - labels)} if params == "report" else {},
    )


ROWS = {"x": np.array([[1.0, 2.0], [3.0, -1.0], [0.0, 1.0]], np.float32)}
TARGETS = np.array([1.0, 0.0, 2.0], np.float32)


def linear(params: str = "", dtype: str = "float32", **kwargs: Any) -> EstimatorModel:
    model = EstimatorModel(ModelFunction(linear_model_fn), linear_network(), params, dtype=dtype, **kwargs)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_one_step_is_gradient_descent_in_any_precision(dtype: str) -> None:
    model = linear(dtype=dtype, metric_names=())

    model.fit(ROWS, TARGETS, batch_size=3, epochs=1, verbose=0)

    errors = ROWS["x"].sum(axis=1) - TARGETS
    gradient = 2 / 3 * ROWS["x"].T @ errors
    np.testing.assert_allclose(model.network.get_weights()[0][:, 0], 1 - 0.1 * gradient, rtol=1e-5)
    wrapped = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert wrapped == (dtype == "mixed_float16")


def test_metrics_are_means_over_examples() -> None:
    model = linear("report", metric_names=("error",))

    measured = model.evaluate(ROWS, TARGETS, batch_size=2, verbose=0, return_dict=True)

    errors = ROWS["x"].sum(axis=1) - TARGETS
    assert measured == pytest.approx({"loss": np.mean(errors**2), "error": np.mean(np.abs(errors))})


def test_an_undeclared_metric_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eval_metric_ops has \['error'\], metric_names has \[\]"):
        linear("report").evaluate(ROWS, TARGETS, verbose=0)


@pytest.mark.slow
def test_each_mode_is_traced_once() -> None:
    calls: Counter[str] = Counter()

    def counting(features: Any, labels: Any, mode: str, params: Any, network: Any) -> EstimatorSpec:
        calls[mode] += 1
        return linear_model_fn(features, labels, mode, params, network)

    model = EstimatorModel(ModelFunction(counting), linear_network(), "", metric_names=())
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    # Three rows in batches of two: the last batch is smaller. (Keras takes the batches to predict on out of
    # the data set before its step, which it traces again where their sizes differ.)
    batches = tf.data.Dataset.from_tensor_slices((ROWS, TARGETS)).batch(2)
    whole = batches.unbatch().batch(3)

    model.fit(batches, epochs=3, validation_data=batches, verbose=0)
    model.evaluate(batches, verbose=0)
    model.predict(whole, verbose=0)
    model.predict(whole, verbose=0)

    assert calls == {ModeKeys.TRAIN: 1, ModeKeys.EVAL: 1, ModeKeys.PREDICT: 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda features: features, "model_fn should return an EstimatorSpec."),
        (
            lambda features: EstimatorSpec(ModeKeys.PREDICT, features),
            "called in mode 'eval' and returned a spec",
        ),
    ],
)
def test_what_a_model_fn_returns_is_checked(wrong: Callable[..., Any], message: str) -> None:
    model = EstimatorModel(ModelFunction(wrong), linear_network(), "")
    model.compile(optimizer="sgd")

    with pytest.raises(ValueError, match=message):
        model.evaluate(ROWS, TARGETS, verbose=0)
