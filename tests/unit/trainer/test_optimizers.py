"""Optimizers and schedules by name."""

from __future__ import annotations

from typing import Any, get_args

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.optimizers import build_optimizer
from trainer.recipes import Optimizer, Schedule, resolve

OURS = {"muon_sgd"}


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_each_name_is_one_of_keras_or_ours(name: str) -> None:
    made = build_optimizer(resolve("tutorial", optimizer=name), steps=10)
    assert type(made).__name__.lower() == name.replace("_", "")
    assert float(made.learning_rate) == pytest.approx(0.001)


def test_every_optimizer_and_schedule_of_keras_has_its_name_here() -> None:
    def classes(module: Any, base: type) -> set[str]:
        made = (value for value in vars(module).values() if isinstance(value, type))
        return {kind.__name__.lower() for kind in made if issubclass(kind, base) and kind is not base}

    optimizers = keras.optimizers
    others = {
        "lossscaleoptimizer",  # the Trainer's own business, where float16 needs it
        "multioptimizer",  # takes optimizers, which no setting can name
        "schedulefreeadamw",  # Keras never puts its averaged weights in place for an evaluation
    }
    assert classes(optimizers, optimizers.Optimizer) - others == set(get_args(Optimizer)) - OURS
    schedules = classes(optimizers.schedules, optimizers.schedules.LearningRateSchedule)
    assert schedules == {name.replace("_", "") for name in get_args(Schedule)} - {"constant", "onecycle"}


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_each_optimizer_makes_a_step(name: str) -> None:
    kernels = [keras.Variable(np.ones(shape, np.float32)) for shape in ((3, 3, 2, 4), (4, 5), (5,))]
    made = build_optimizer(resolve("tutorial", optimizer=name, learning_rate=0.1), steps=10)
    made.build(kernels)
    made.apply([tf.random.stateless_normal(kernel.shape, seed=[0, 1]) for kernel in kernels])
    for kernel in kernels:
        assert np.all(np.isfinite(kernel.numpy()))
        assert np.any(kernel.numpy() != 1)


@pytest.mark.parametrize("name", sorted(set(get_args(Schedule)) - {"constant", "one_cycle"}))
def test_each_schedule_begins_with_the_learning_rate(name: str) -> None:
    arguments = {
        "exponential_decay": {"decay_rate": 0.5},
        "inverse_time_decay": {"decay_rate": 0.5},
        "piecewise_constant_decay": {"boundaries": [5], "values": [0.001, 0.0001]},
    }
    given = arguments.get(name, {})
    params = resolve("tutorial", schedule=name, schedule_arguments=given)
    schedule = build_optimizer(params, steps=10)._learning_rate
    assert type(schedule).__name__.lower() == name.replace("_", "")
    assert float(schedule(0)) == pytest.approx(0.001)
    assert float(schedule(9)) < 0.001


def test_arguments_come_before_the_recipes_own() -> None:
    params = resolve("tutorial", momentum=0.9)
    assert build_optimizer(params, steps=1).nesterov
    plain = resolve("tutorial", momentum=0.9, optimizer_arguments={"nesterov": False})
    made = build_optimizer(plain, steps=1)
    assert isinstance(made, keras.optimizers.SGD)
    assert (made.momentum, made.nesterov) == (0.9, False)
