"""Optimizers and schedules by name."""

from __future__ import annotations

from typing import get_args

import keras
import pytest

from trainer.optimizers import build_optimizer
from trainer.recipes import Optimizer, Schedule, resolve


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_each_name_is_one_of_keras(name: str) -> None:
    made = build_optimizer(resolve("tutorial", optimizer=name), steps=10)
    assert type(made).__name__.lower() == name
    assert float(made.learning_rate) == pytest.approx(0.001)


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
