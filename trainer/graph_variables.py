"""Variables that a model function makes itself, as in TensorFlow 1: layers, optimizers, metrics.

In TensorFlow 1 each mode had a graph of its own, and a checkpoint carried the variables from one to the
next by their names. Here a function is traced once a mode; what it asks for by name is made the first time,
and found again in each later trace.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_KEYS = tf.compat.v1.GraphKeys
# A traced function shares these with the program around it; each call of a model function starts without.
_SHARED_COLLECTIONS = (
    ("__variable_store",),
    ("__varscope",),
    _KEYS.GLOBAL_VARIABLES,
    _KEYS.LOCAL_VARIABLES,
    _KEYS.TRAINABLE_VARIABLES,
    _KEYS.LOSSES,
    _KEYS.REGULARIZATION_LOSSES,
    _KEYS.UPDATE_OPS,
    _KEYS.METRIC_VARIABLES,
    _KEYS.GLOBAL_STEP,
)


class GraphVariables:
    """The variables of one model, by name."""

    def __init__(self) -> None:
        """Make it empty, but for the global step."""
        self.global_step = tf.Variable(0, trainable=False, dtype=tf.int64, name="global_step")
        self._variables: dict[str, tf.Variable] = {}
        self._metrics: dict[str, np.ndarray] = {}  # of those of metrics: what they begin with
        self._asked: Counter[str] = Counter()
        self._making = False

    @property
    def variables(self) -> list[tf.Variable]:
        """All that outlasts an evaluation, in the order of their making; optimizers' state included."""
        return [value for name, value in self._variables.items() if name not in self._metrics]

    @property
    def trainable_variables(self) -> list[tf.Variable]:
        """What an optimizer updates."""
        return [variable for variable in self.variables if variable.trainable]

    def by_name(self) -> dict[str, tf.Variable]:
        """As a checkpoint of TensorFlow 1 names them."""
        return {name: value for name, value in self._variables.items() if name not in self._metrics}

    def get_weights(self) -> list[np.ndarray]:
        """The values of `variables`."""
        return [variable.numpy() for variable in self.variables]

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Put them back."""
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)

    def reset_metrics(self) -> None:
        """Reset the metrics."""
        for name, start in self._metrics.items():
            self._variables[name].assign(start)

    @contextlib.contextmanager
    def found_again(self) -> Iterator[None]:
        """Around whatever traces a model function: optimizers make their state outside of the trace."""
        with tf.variable_creator_scope(self._make):
            yield

    @contextlib.contextmanager
    def of_a_call(self) -> Iterator[None]:
        """Around a call of a model function in a trace."""
        graph = tf.compat.v1.get_default_graph()
        for collection in _SHARED_COLLECTIONS:
            graph.clear_collection(collection)
        tf.compat.v1.add_to_collection(_KEYS.GLOBAL_STEP, self.global_step)
        self._asked.clear()
        with tf.variable_creator_scope(self._make):
            yield

    def _make(self, next_creator: Callable[..., Any], **wanted: Any) -> Any:
        if self._making:
            return next_creator(**wanted)
        name = wanted.get("name") or "Variable"
        self._asked[name] += 1
        if self._asked[name] > 1:
            name = f"{name}_{self._asked[name] - 1}"
        collections = wanted.get("collections") or [_KEYS.GLOBAL_VARIABLES]
        if name not in self._variables:
            self._variables[name] = self._made(name, wanted)
            if _KEYS.METRIC_VARIABLES in collections:
                with tf.init_scope():
                    self._metrics[name] = self._variables[name].numpy()
        variable = self._variables[name]
        if not tf.executing_eagerly():
            if variable.trainable and _KEYS.TRAINABLE_VARIABLES not in collections:
                collections = [*collections, _KEYS.TRAINABLE_VARIABLES]
            for collection in set(collections):
                tf.compat.v1.add_to_collection(collection, variable)
        return variable

    def _made(self, name: str, wanted: dict[str, Any]) -> tf.Variable:
        start = wanted["initial_value"]
        if tf.is_tensor(start) and not hasattr(start, "numpy"):
            static = tf.get_static_value(start)
            if static is None:
                raise ValueError(
                    f"variable {name!r} begins with the value of a tensor: give tf.compat.v1.get_variable "
                    "an initializer instead"
                )
            start = static
        known = ("trainable", "dtype", "synchronization", "aggregation", "constraint")
        options = {key: wanted[key] for key in known if wanted.get(key) is not None}
        self._making = True
        try:
            with tf.init_scope():
                return tf.Variable(start, name=name, **options)
        finally:
            self._making = False
