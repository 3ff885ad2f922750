"""The optimizer and the learning rate over time, as a recipe asks for them."""

from __future__ import annotations

from typing import Any

import keras

from trainer.recipes import Params


def build_optimizer(params: Params, steps: int) -> keras.optimizers.Optimizer:
    """Make the optimizer of a recipe, its schedule spanning `steps` steps."""
    rate = _learning_rate(params, steps)
    average: dict[str, Any] = {}
    if params.weight_average:
        average = {"use_ema": True, "ema_momentum": params.weight_average}
    if params.optimizer == "sgd":
        return keras.optimizers.SGD(
            rate,
            momentum=params.momentum,
            nesterov=params.momentum > 0,
            weight_decay=params.weight_decay or None,
            **average,
        )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=params.weight_decay, beta_2=0.99, **average)
    # Decay is for what multiplies activations; on scales and offsets it only costs accuracy.
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


def _learning_rate(params: Params, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    if params.schedule == "constant":
        return params.learning_rate
    warmup = max(1, round(steps * params.warmup))
    # One cycle (Smith, arXiv 1708.07120): up to the peak in a straight line, down to zero along a cosine.
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=params.learning_rate / 25,
        warmup_target=params.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
        alpha=0.0,
    )
