"""Calls a model function as tf.estimator did: arguments by name, and each mode checked."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.estimator import EstimatorSpec, RunConfig

_ARGUMENTS = ("features", "labels", "mode", "params", "config", "network")


class ModelFunction:
    """A function of `features` and any of `labels`, `mode`, `params`, `config` and `network`.

    `network` is the one argument that tf.estimator did not have: TensorFlow 2 keeps variables in objects,
    so a caller must hold them between the calls. A function without it makes its variables itself, with
    tf.compat.v1.get_variable or layers: see trainer.graph_variables.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """Look at the function's arguments.

        Raises:
            ValueError: in tf.estimator's words, for a function without `features`, or with others.
        """
        names = _argument_names(function)
        if "features" not in names:
            raise ValueError(f"model_fn ({_name(function)}) must include features argument.")
        if unknown := [name for name in names if name not in _ARGUMENTS]:
            raise ValueError(f"model_fn ({_name(function)}) has following not expected args: {unknown}")
        self._function, self._names = function, names
        self.__name__ = _name(function)

    @property
    def takes_network(self) -> bool:
        """Whether the caller makes the variables."""
        return "network" in self._names

    def __call__(
        self,
        features: Mapping[str, tf.Tensor],
        labels: tf.Tensor | None,
        mode: str,
        params: Any,
        network: keras.Model | None = None,
        config: RunConfig | None = None,
    ) -> EstimatorSpec:
        """Call it in a mode; `params` as a copy, so that a function may change them.

        Raises:
            ValueError: where it returns something else than a spec of this mode.
        """
        given = {
            "features": features,
            "labels": labels,
            "mode": mode,
            "params": copy.deepcopy(params) if "params" in self._names else None,
            "config": config or RunConfig(),
            "network": network,
        }
        spec = self._function(**{name: given[name] for name in self._names})
        if not isinstance(spec, EstimatorSpec):
            raise ValueError("model_fn should return an EstimatorSpec.")
        if spec.mode != mode:
            raise ValueError(
                f"model_fn was called in mode {mode!r} and returned a spec of mode {spec.mode!r}."
            )
        return spec


def _argument_names(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind not in kinds]


def _name(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return f"{function.__module__}.{getattr(function, '__qualname__', type(function).__qualname__)}"
