"""The optimizer and the learning rate over time, as a recipe asks for them."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from trainer.muon import MuonSGD
from trainer.recipes import Params


def build_optimizer(params: Params, steps: int) -> keras.optimizers.Optimizer:
    """Make the optimizer of a recipe, its schedule spanning `steps` steps.

    Raises:
        ValueError: for arguments that the optimizer or the schedule does not have.
    """
    arguments: dict[str, Any] = {"learning_rate": _learning_rate(params, steps)}
    if params.weight_average:
        arguments |= {"use_ema": True, "ema_momentum": params.weight_average}
    if params.weight_decay:
        arguments["weight_decay"] = params.weight_decay
    if params.optimizer == "sgd":
        arguments |= {"momentum": params.momentum, "nesterov": params.momentum > 0}
    if params.optimizer == "adamw":
        arguments |= {"beta_2": 0.99, "weight_decay": params.weight_decay}
    if params.optimizer == "muon_sgd":
        arguments["momentum"] = params.momentum
        kind = MuonSGD
    else:
        kind = _by_name(keras.optimizers, params.optimizer)
    if params.weight_average_grows:
        kind = _with_growing_average(kind)
    optimizer = _made(kind, arguments, params.optimizer_arguments, "optimizer_arguments")
    if params.weight_decay:
        # Decay is for what multiplies activations; on scales and offsets it only costs accuracy.
        optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


def _learning_rate(params: Params, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    if params.schedule == "constant":
        return params.learning_rate
    if params.schedule == "one_cycle":
        warmup = max(1, round(steps * params.warmup))
        # One cycle (Smith, arXiv 1708.07120): straight up to the peak, down to zero along a cosine.
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=params.learning_rate / 25,
            warmup_target=params.learning_rate,
            warmup_steps=warmup,
            decay_steps=max(1, steps - warmup),
            alpha=0.0,
        )
    kind = _by_name(keras.optimizers.schedules, params.schedule)
    known = inspect.signature(kind).parameters
    arguments = {"initial_learning_rate": params.learning_rate, "decay_steps": steps}
    if "first_decay_steps" in known:
        arguments["first_decay_steps"] = steps
    fitting = {name: value for name, value in arguments.items() if name in known}
    return _made(kind, fitting, params.schedule_arguments, "schedule_arguments")


def _with_growing_average(kind: Any) -> Any:
    """The optimizer, whose moving average of the weights forgets fast at first.

    As tf.train.ExponentialMovingAverage with num_updates: after n updates it keeps no more than
    (1 + n) / (10 + n).
    """

    class GrowingAverage(kind):
        @property
        def ema_momentum(self) -> Any:
            updates = keras.ops.cast(self.iterations, "float32")
            return keras.ops.minimum(self._most, (1 + updates) / (10 + updates))

        @ema_momentum.setter
        def ema_momentum(self, most: float) -> None:
            self._most = most

    GrowingAverage.__name__ = kind.__name__
    # Errors and _made look at the arguments.
    GrowingAverage.__signature__ = inspect.signature(kind)
    return GrowingAverage


def _by_name(module: Any, name: str) -> Any:
    """The class whose name is `name` without case and underscores."""
    return next(getattr(module, found) for found in dir(module) if found.lower() == name.replace("_", ""))


def _made(kind: Any, ours: dict[str, Any], given: dict[str, Any], setting: str) -> Any:
    known = [name for name in inspect.signature(kind).parameters if name != "kwargs"]
    if unknown := [name for name in given if name not in known]:
        raise ValueError(
            f"{setting}: {kind.__name__} has no argument {unknown[0]!r}; there are {', '.join(known)}"
        )
    try:
        return kind(**(ours | given))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{setting}: {kind.__name__}: {error}") from error
