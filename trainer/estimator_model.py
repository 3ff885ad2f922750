"""The Keras model that runs a model function: fit, evaluate and predict are its three modes."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from trainer.estimator import EstimatorSpec, LoggingTensorHook, ModeKeys, RunConfig
from trainer.features import CLASSES
from trainer.graph_variables import GraphVariables
from trainer.model_function import ModelFunction

ONE_DEVICE = (
    "a function that makes its variables itself trains on one device: give it an argument `network` and "
    "train with trainer.estimator.minimize, or make one device visible (CUDA_VISIBLE_DEVICES=0) and set "
    "trainer.gpus=1, without trainer.workers"
)
PER_EXAMPLE = (
    "eval_metric_ops: {} keep a state, which several replicas would each have a part of: give values per "
    "example, of which the mean is taken"
)
SUMMARY_EVERY_STEPS = 100  # tf.estimator's default


@dataclass(frozen=True)
class Traced:
    """What a model function says in its three modes.

    Attributes:
        values: names of EVAL's metrics that are values per example.
        running: names of EVAL's metrics that keep a state of their own.
        callbacks: Keras callbacks out of the hooks; those for the chief alone are `chief_callbacks`.
        logged: hooks that log tensors of the training step.
        predictions: by name, symbolic.
    """

    values: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    callbacks: tuple[keras.callbacks.Callback, ...] = ()
    chief_callbacks: tuple[keras.callbacks.Callback, ...] = ()
    logged: tuple[LoggingTensorHook, ...] = ()
    predictions: Mapping[str, tf.Tensor] = field(default_factory=dict)


class ConfusionMatrix(keras.metrics.Metric):
    """How often each class was taken for which; int64 [C, C], a row for each true class."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(name="confusion", dtype="int64")
        self._num_classes = num_classes
        self._counts = self.add_variable((num_classes, num_classes), "zeros", dtype="int64", name="counts")

    def update_state(self, labels: tf.Tensor, classes: tf.Tensor) -> None:
        """Count int64 [N] labels and predictions; labels beyond the classes are an error."""
        self._counts.assign_add(
            tf.math.confusion_matrix(
                tf.reshape(labels, [-1]), classes, self._num_classes, dtype=self._counts.dtype
            )
        )

    def result(self) -> tf.Tensor:
        """The matrix so far."""
        return self._counts.value


def variable_names(network: keras.Model) -> list[str]:
    """Of a network's variables, in their order: the same in every process, as `conv1/kernel`.

    Keras counts the layers that have no name through a whole process: the second network made there begins
    with `dense_1`. Here each network counts its own. Those of a network in it begin with its name.
    """
    names = dict(_names_by_id(network))
    return [names.get(id(variable), variable.path) for variable in network.variables]


def _names_by_id(network: keras.Model, prefix: str = "") -> Iterator[tuple[int, str]]:
    seen: Counter[str] = Counter()
    for layer in network.layers:
        name = layer.name
        kind = re.sub(r"_\d+$", "", name)
        if kind.replace("_", "") == type(layer).__name__.lower():
            name = f"{kind}_{seen[kind]}" if seen[kind] else kind
            seen[kind] += 1
        if isinstance(layer, keras.Model):
            yield from _names_by_id(layer, f"{prefix}{name}/")
            continue
        for variable in layer.variables:
            _, _, rest = variable.path.rpartition(f"{layer.name}/")
            yield id(variable), f"{prefix}{name}/{rest}"


class EstimatorModel(keras.Model):
    """A Keras model whose train, test and predict steps are one model_fn in its three modes.

    Compile it with an optimizer alone: loss and metrics come from the model_fn. Inputs are dicts of
    features, targets are labels.
    """

    def __init__(
        self,
        model_fn: ModelFunction,
        network: keras.Model | None,
        params: Any,
        metric_names: Sequence[str] = (),
        num_classes: int | None = None,
        config: RunConfig | None = None,
        **kwargs: Any,
    ) -> None:
        """Wrap a model function.

        Args:
            model_fn: the model function.
            network: holds the variables; None: the function makes them, and `network` is where they are.
            params: handed to the model_fn.
            metric_names: metrics that are values per example; `trace` finds out those of any function.
            num_classes: C, for a confusion matrix of each evaluation, out of the `classes` that the
                model_fn predicts; None: no matrix.
            config: handed to the model_fn.
            **kwargs: keras.Model's own, such as `dtype`, by which it decides on loss scaling.
        """
        super().__init__(**kwargs)
        self.graph_variables = GraphVariables()
        self.network: Any = self.graph_variables if network is None else network
        self.given_network = network
        self._model_fn = model_fn
        self._params = params
        self._config = config
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._means = {name: keras.metrics.Mean(name=name) for name in metric_names}
        self.confusion = ConfusionMatrix(num_classes) if num_classes else None
        # Where tf.summary of the model function writes; None: nowhere.
        self.summary_writer: tf.summary.SummaryWriter | None = None
        self.summary_every_steps = SUMMARY_EVERY_STEPS
        # Steps of the next fit that an earlier one, which was killed, has made: they return at once.
        self.steps_done = 0
        self.built = True

    def compile(self, optimizer: Any, **kwargs: Any) -> None:
        """Keras's own, after which the optimizer has its variables: made by the first step, they would have
        Keras trace that step twice.
        """
        super().compile(optimizer=optimizer, **kwargs)
        if self.given_network is not None:
            self.optimizer.build(self.given_network.trainable_variables)

    def state(self) -> list[Any]:
        """All variables that decide how training goes on, of whoever has made them."""
        own = [self.graph_variables.global_step, *self.graph_variables.variables]
        if self.given_network is None:
            return own
        return [*self.given_network.variables, *self.optimizer.variables, *own]

    def named_variables(self) -> dict[str, Any]:
        """The variables that can begin with values of another model: weights and running means."""
        if self.given_network is None:
            return {
                name: value for name, value in self.graph_variables.by_name().items() if value.trainable
            }
        named = zip(variable_names(self.given_network), self.given_network.variables, strict=True)
        return {name: value for name, value in named if tf.as_dtype(value.dtype).is_floating}

    def state_names(self) -> list[str]:
        """Of the variables of `state`, in its order."""
        own = ["global_step", *self.graph_variables.by_name()]
        if self.given_network is None:
            return own
        optimizer = [variable.path for variable in self.optimizer.variables]
        return [*variable_names(self.given_network), *optimizer, *own]

    def trace(
        self, features: Mapping[str, tf.TensorSpec], labels: tf.TensorSpec, batch_size: int
    ) -> Traced:
        """Call the model function in its three modes with symbolic tensors; no example is needed.

        Afterwards the variables that it makes itself are there, and its metrics are known.

        Args:
            features: by name, of one example.
            labels: of one example.
            batch_size: of training; evaluation and prediction are traced with batches of any size.

        Raises:
            ValueError, TypeError: for what is wrong with the function, as it will be when it is called.
        """
        if self.given_network is None and self.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(ONE_DEVICE)
        specs: dict[str, EstimatorSpec] = {}

        def call(mode: str, count: int | None, *inputs: Any) -> None:
            batch = [
                tf.nest.map_structure(lambda one: tf.TensorSpec([count, *one.shape], one.dtype), given)
                for given in inputs
            ]

            def traced(features: Mapping[str, tf.Tensor], labels: tf.Tensor | None = None) -> None:
                specs[mode] = self.spec(features, labels, mode)
                if mode == ModeKeys.TRAIN:
                    self._update(specs[mode])

            def on_each_replica(*given: Any) -> None:
                self.distribute_strategy.run(traced, given)

            try:
                tf.function(on_each_replica, autograph=False).get_concrete_function(*batch)
            except Exception as error:
                error.add_note(f"in mode {mode!r}")
                raise

        with self.graph_variables.found_again():
            call(ModeKeys.TRAIN, batch_size, features, labels)
            call(ModeKeys.EVAL, None, features, labels)
            call(ModeKeys.PREDICT, None, features)
        predictions = specs[ModeKeys.PREDICT].prediction_dict
        for name, value in predictions.items():
            if value.shape.rank == 0:
                raise ValueError(
                    f"predictions[{name}] must have the batch as its first dimension, given: a scalar"
                )
        values, running = (
            tuple(
                name
                for name, metric in specs[ModeKeys.EVAL].eval_metric_ops.items()
                if tf.is_tensor(metric) == per_example
            )
            for per_example in (True, False)
        )
        if running and self.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(PER_EXAMPLE.format(", ".join(running)))
        shown = [
            name for name, metric in specs[ModeKeys.TRAIN].eval_metric_ops.items() if tf.is_tensor(metric)
        ]
        for name in (*values, *shown):
            self._means.setdefault(name, keras.metrics.Mean(name=name))
        hooks = specs[ModeKeys.TRAIN].training_hooks
        assert hooks is not None
        chief, evaluation = (
            specs[ModeKeys.TRAIN].training_chief_hooks,
            specs[ModeKeys.EVAL].evaluation_hooks,
        )
        return Traced(
            values=values,
            running=running,
            callbacks=(
                *(hook for hook in hooks if not isinstance(hook, LoggingTensorHook)),
                *(evaluation or ()),
            ),
            chief_callbacks=tuple(chief or ()),
            logged=tuple(hook for hook in hooks if isinstance(hook, LoggingTensorHook)),
            predictions=predictions,
        )

    def make_train_function(self, force: bool = False) -> None:
        """As Keras does it, but for steps that are done already and for several workers."""
        if self.train_function is not None and not force:
            return
        step = self._distributed(self.train_step)

        def step_unless_done(iterator: Any) -> dict[str, tf.Tensor]:
            if self.steps_done:
                self.steps_done -= 1
                return {metric.name: metric.result() for metric in self.metrics}
            with self._summaries():
                return step(iterator)

        self.train_function: Any = step_unless_done

    @contextlib.contextmanager
    def _summaries(self) -> Iterator[None]:
        if self.summary_writer is None:
            yield
            return
        step = self.graph_variables.global_step
        with (
            self.summary_writer.as_default(step=step),
            tf.summary.record_if(lambda: tf.equal(step % self.summary_every_steps, 0)),
        ):
            yield

    def make_test_function(self, force: bool = False) -> None:
        """As Keras does it, but for several workers."""
        if self.test_function is not None and not force:
            return
        self.test_function: Any = self._distributed(self.test_step)

    def _distributed(self, step: Callable[[Any], dict[str, tf.Tensor]]) -> Callable[[Any], Any]:
        """A compiled function of an iterator: one step on each replica, and the mean of what they return.

        Keras 3.15's own takes the mean over an axis that the scalars of several workers do not have.
        """
        strategy = self.distribute_strategy

        # Translating Python's control flow, which tf.estimator never did, takes half of the tracing time.
        @tf.function(reduce_retracing=True, autograph=False)
        def next_step(iterator: Any) -> dict[str, tf.Tensor]:
            outputs = strategy.run(step, args=(iterator.get_next(),))
            mean = tf.distribute.ReduceOp.MEAN
            return {name: strategy.reduce(mean, value, axis=None) for name, value in outputs.items()}

        def step_of(iterator: Any) -> dict[str, tf.Tensor]:
            try:
                with self.graph_variables.found_again():
                    return next_step(iterator)
            except tf.errors.OutOfRangeError:
                raise StopIteration from None

        return step_of

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing: everything is built. Keras's own takes a batch for it, and fails on several workers'."""

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Reset by Keras at the start of each epoch and evaluation."""
        return [self._loss_mean, *self._means.values()]

    def reset_metrics(self) -> None:
        """Keras calls it at the start of each epoch and evaluation."""
        super().reset_metrics()
        self.graph_variables.reset_metrics()
        if self.confusion is not None:
            self.confusion.reset_state()

    def call(self, inputs: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        """The predictions of the model_fn in PREDICT."""
        return self.spec(inputs, None, ModeKeys.PREDICT).prediction_dict

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update; returns the running means of the epoch, and what hooks log."""
        features, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        spec = self.spec(features, labels, ModeKeys.TRAIN)
        self._update(spec)
        logged = [hook.tensors for hook in spec.training_hooks or () if isinstance(hook, LoggingTensorHook)]
        outputs = self._track(spec, features)
        for tensors in logged:
            outputs |= tensors
        return outputs

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Evaluate one batch; returns the running means, and the metrics that keep their own state."""
        features, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        spec = self.spec(features, labels, ModeKeys.EVAL)
        classes = spec.prediction_dict.get(CLASSES) if spec.predictions is not None else None
        if self.confusion is not None and classes is not None:
            self.confusion.update_state(labels, classes)
        outputs = self._track(spec, features)
        for name, metric in spec.eval_metric_ops.items():
            if isinstance(metric, keras.metrics.Metric):
                outputs[name] = metric.result()
            elif isinstance(metric, tuple):
                outputs[name] = metric[1]  # the value after the update
        return outputs

    def predict_step(self, data: Any) -> Mapping[str, tf.Tensor]:
        """Predictions for one batch of features; labels that come with it are left alone."""
        features, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.call(features)

    def spec(self, features: Mapping[str, tf.Tensor], labels: tf.Tensor | None, mode: str) -> EstimatorSpec:
        """What the model function says in a mode."""
        if tf.executing_eagerly():
            # Graph collections are of graphs alone: a function that needs them is never called so.
            return self._model_fn(features, labels, mode, self._params, self.given_network, self._config)
        with self.graph_variables.of_a_call():
            return self._model_fn(features, labels, mode, self._params, self.given_network, self._config)

    def _update(self, spec: EstimatorSpec) -> None:
        if callable(spec.train_op):
            spec.train_op(self.optimizer)
        # Otherwise it is a part of the graph already.
        if self._model_fn.takes_network:
            self.graph_variables.global_step.assign_add(1)

    def _track(self, spec: EstimatorSpec, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        values = {name: value for name, value in spec.eval_metric_ops.items() if tf.is_tensor(value)}
        if unknown := set(values) - set(self._means):
            raise ValueError(
                f"eval_metric_ops has {sorted(unknown)}, metric_names has {sorted(self._means)}."
            )
        examples = tf.shape(next(iter(features.values())))[0]
        self._loss_mean.update_state(spec.loss, sample_weight=tf.cast(examples, tf.float32))
        for name, value in values.items():
            self._means[name].update_state(value)
        means = (self._loss_mean, *(self._means[name] for name in values))
        return {mean.name: mean.result() for mean in means}
