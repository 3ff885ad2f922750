"""The model function in each mode, and what a compiled model does with it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import features, model
from trainer.estimator import ModeKeys
from trainer.estimator_model import EstimatorModel
from trainer.networks import NETWORKS
from trainer.recipes import RECIPES, Params, resolve

WITHOUT_BASE = [name for name, make in RECIPES.items() if not NETWORKS[make().network].needs_base]
SHAPE = features.DEFAULT_IMAGE_SHAPE
CLASSES = 10
N = 6
IMAGES = {features.IMAGE: tf.constant(np.random.default_rng(0).random((N, *SHAPE)), tf.float32)}
LABELS = tf.constant(np.arange(N), tf.int64)


def params(recipe: str, **overrides: Any) -> Params:
    return resolve(recipe, **({"precision": "float32"} | overrides))


def network(recipe: str, **overrides: Any) -> keras.Model:
    return model.build_network(params(recipe, **overrides), SHAPE, CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", WITHOUT_BASE)
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_predict(recipe: str, precision: str) -> None:
    spec = model.model_fn(
        IMAGES, None, ModeKeys.PREDICT, params(recipe), network(recipe, precision=precision)
    )

    assert spec.predictions is not None
    shapes = {name: (value.dtype, tuple(value.shape)) for name, value in spec.predictions.items()}
    assert shapes == {
        "classes": (tf.int64, (N,)),
        "probabilities": (tf.float32, (N, CLASSES)),
        "logits": (tf.float32, (N, CLASSES)),
    }
    logits = spec.predictions["logits"].numpy()
    np.testing.assert_array_equal(spec.predictions["classes"], logits.argmax(axis=1))
    np.testing.assert_allclose(spec.predictions["probabilities"], tf.nn.softmax(logits), rtol=1e-6)
    assert spec.loss is None
    assert spec.train_op is None
    assert spec.eval_metric_ops == {}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", WITHOUT_BASE)
def test_eval(recipe: str) -> None:
    spec = model.model_fn(IMAGES, LABELS, ModeKeys.EVAL, params(recipe), network(recipe))

    assert spec.predictions is not None
    assert spec.loss is not None
    assert (spec.loss.dtype, spec.loss.shape) == (tf.float32, ())
    log_probabilities = np.log(spec.predictions["probabilities"].numpy())
    assert float(spec.loss) == pytest.approx(-log_probabilities[range(N), LABELS].mean(), rel=1e-5)
    assert spec.train_op is None
    np.testing.assert_array_equal(
        spec.eval_metric_ops["accuracy"], spec.predictions["classes"].numpy() == LABELS.numpy()
    )


@pytest.mark.slow
@pytest.mark.parametrize("recipe", WITHOUT_BASE)
def test_train(recipe: str) -> None:
    layers = network(recipe)
    before = [weight.numpy() for weight in layers.trainable_variables]

    for _ in range(2):  # a block that begins as the identity learns from the second step on
        spec = model.model_fn(IMAGES, LABELS, ModeKeys.TRAIN, params(recipe), layers)
        assert spec.train_op is not None
        spec.train_op(keras.optimizers.SGD(0.1))

    assert spec.loss is not None
    assert (spec.loss.dtype, spec.loss.shape) == (tf.float32, ())
    assert set(spec.eval_metric_ops) == {"accuracy"}
    for old, weight in zip(before, layers.trainable_variables, strict=True):
        assert np.any(old != weight.numpy()), weight.path


def test_label_smoothing_is_in_the_training_loss_alone() -> None:
    layers = network("tutorial", dropout=0.0)
    smooth = params("tutorial", label_smoothing=0.1)

    trained, evaluated = (
        model.model_fn(IMAGES, LABELS, mode, smooth, layers) for mode in (ModeKeys.TRAIN, ModeKeys.EVAL)
    )

    assert evaluated.predictions is not None
    targets = 0.9 * np.eye(CLASSES)[LABELS] + 0.1 / CLASSES
    expected = -(targets * np.log(evaluated.predictions["probabilities"])).sum(axis=1).mean()
    assert trained.loss is not None
    assert evaluated.loss is not None
    assert float(trained.loss) == pytest.approx(expected, rel=1e-5)
    assert float(evaluated.loss) != pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", [ModeKeys.TRAIN, ModeKeys.EVAL])
def test_missing_labels_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match="Missing labels"):
        model.model_fn(IMAGES, None, mode, params("tutorial"), network("tutorial"))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="Invalid mode: 'test'"):
        model.model_fn(IMAGES, LABELS, "test", params("tutorial"), network("tutorial"))


def test_the_optimizer_of_the_tutorial_is_plain_sgd() -> None:
    optimizer = model.build_model(params("tutorial"), SHAPE, CLASSES, steps=20_000).optimizer

    assert type(optimizer) is keras.optimizers.SGD
    assert (optimizer.momentum, optimizer.weight_decay) == (0.0, None)
    assert float(optimizer.learning_rate) == pytest.approx(0.001)


@pytest.mark.slow
def test_one_cycle_climbs_to_the_peak_and_falls_to_zero() -> None:
    fast = params("fast", learning_rate=0.01, warmup=0.25)
    schedule = model.build_model(fast, SHAPE, CLASSES, steps=100).optimizer._learning_rate

    rates = [float(schedule(step)) for step in range(101)]

    assert rates[0] == pytest.approx(0.01 / 25)
    assert np.argmax(rates) == 25
    assert rates[25] == pytest.approx(0.01)
    assert rates[100] == pytest.approx(0.0, abs=1e-8)


def compiled(recipe: str, **overrides: Any) -> EstimatorModel:
    return model.build_model(params(recipe, **overrides), SHAPE, CLASSES, steps=10)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", WITHOUT_BASE)
def test_evaluate_and_predict_change_no_variable(recipe: str) -> None:
    trained = compiled(recipe)
    trained.fit(IMAGES, LABELS, batch_size=3, verbose=0)
    watched = [*trained.network.variables, *trained.optimizer.variables]
    for layer in trained.network.layers:
        watched += layer.variables
    before = [variable.numpy() for variable in watched]

    first = trained.predict(IMAGES, verbose=0)
    trained.evaluate(IMAGES, LABELS, verbose=0)
    second = trained.predict(IMAGES, verbose=0)

    for old, variable in zip(before, watched, strict=True):
        assert old.tobytes() == variable.numpy().tobytes(), variable.path
    np.testing.assert_array_equal(first["logits"], second["logits"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides", [{"dropout": 0.5, "shift": 0}, {"dropout": 0.0, "shift": 3}], ids=["dropout", "shift"]
)
def test_chance_acts_in_training_alone(overrides: dict[str, Any]) -> None:
    chosen = params("tutorial", **overrides)
    layers = network("tutorial", **overrides)

    def loss(mode: str) -> float:
        spec = model.model_fn(IMAGES, LABELS, mode, chosen, layers)
        assert spec.loss is not None
        return float(spec.loss)

    assert len({loss(ModeKeys.TRAIN) for _ in range(4)}) > 1
    assert len({loss(ModeKeys.EVAL) for _ in range(4)}) == 1


@pytest.mark.slow
def test_a_seed_makes_training_reproducible() -> None:
    def weights(seed: int) -> list[np.ndarray]:
        trained = compiled("fast", seed=seed)
        trained.fit(IMAGES, LABELS, batch_size=3, epochs=2, shuffle=False, verbose=0)
        return trained.network.get_weights()

    first, again, other = weights(1), weights(1), weights(2)

    for one, two in zip(first, again, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    assert any(np.any(one != two) for one, two in zip(first, other, strict=True))


@pytest.mark.slow
def test_each_mode_of_a_recipe_is_traced_once() -> None:
    calls: Counter[str] = Counter()

    def counting(features: Any, labels: Any, mode: str, params: Any, network: Any) -> Any:
        calls[mode] += 1
        return model.model_fn(features, labels, mode, params, network)

    trained = model.build_model(params("fast"), SHAPE, CLASSES, 10, model_fn=counting)
    trained.trace({features.IMAGE: tf.TensorSpec(SHAPE)}, tf.TensorSpec([], tf.int64), 4)
    calls.clear()
    batches = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4)

    trained.fit(batches, epochs=3, validation_data=batches, verbose=0)
    trained.predict(IMAGES, verbose=0)

    assert calls == {ModeKeys.TRAIN: 1, ModeKeys.EVAL: 1, ModeKeys.PREDICT: 1}
