"""ModeKeys, EstimatorSpec, and the Keras model that runs a model_fn.

tf.estimator left TensorFlow after 2.15. Its contract, one function that describes a model in all three
modes, is kept here; its session loop is not: Keras drives, so that fit / evaluate / predict, callbacks,
checkpoints, tf.distribute and mixed precision are Keras's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from trainer.features import CLASSES

TrainOp = Callable[[keras.optimizers.Optimizer], None]


class ModeKeys:
    """What a model_fn is called for; the values are tf.estimator's."""

    TRAIN = "train"
    EVAL = "eval"
    PREDICT = "infer"


@dataclass(frozen=True)
class EstimatorSpec:
    """What a model_fn returns: tf.estimator.EstimatorSpec without sessions, hooks and scaffolds.

    Attributes:
        mode: a ModeKeys value.
        predictions: tensors by name, first dimension N; required in PREDICT.
        loss: float32 scalar, the mean over the batch on this replica; required in TRAIN and EVAL.
        train_op: a function that takes the optimizer that Keras compiled and makes one update with it;
            required in TRAIN. In TensorFlow 1 it was a node that a session ran once a step; here the runner
            calls it once while it traces the step, so it becomes the same node. See `minimize`.
        eval_metric_ops: per-example values by name, float32 [N]; the runner reports their mean over all
            examples, in TRAIN and EVAL. (tf.estimator kept a metric's state beside the function; a mean of
            per-example values needs none.)
        export_outputs: predictions by signature name; defaults to `predictions` under `serving_default`.

    Raises:
        ValueError, TypeError: with tf.estimator's wording, where a field that the mode needs is missing or
            has the wrong form.
    """

    mode: str
    predictions: Mapping[str, tf.Tensor] | None = None
    loss: tf.Tensor | None = None
    train_op: TrainOp | None = None
    eval_metric_ops: Mapping[str, tf.Tensor] = field(default_factory=dict)
    export_outputs: Mapping[str, Mapping[str, tf.Tensor]] | None = None

    def __post_init__(self) -> None:
        if self.mode not in (ModeKeys.TRAIN, ModeKeys.EVAL, ModeKeys.PREDICT):
            raise ValueError(f"Invalid mode: {self.mode!r}.")
        if self.train_op is None and self.mode == ModeKeys.TRAIN:
            raise ValueError("Missing train_op.")
        if self.train_op is not None and not callable(self.train_op):
            raise TypeError(f"train_op must be callable, given: {self.train_op}")
        self._check_loss()
        self._check_predictions()
        if not isinstance(self.eval_metric_ops, Mapping):
            raise TypeError(f"eval_metric_ops must be a dict, given: {self.eval_metric_ops}")

    def _check_loss(self) -> None:
        if self.loss is None:
            if self.mode != ModeKeys.PREDICT:
                raise ValueError("Missing loss.")
            return
        if not tf.is_tensor(self.loss):
            raise TypeError(f"loss must be Tensor, given: {self.loss}")
        if self.loss.shape.rank not in (None, 0):
            raise ValueError(f"Loss must be scalar, given: {self.loss}")

    def _check_predictions(self) -> None:
        if self.predictions is None:
            if self.mode == ModeKeys.PREDICT:
                raise ValueError("Missing predictions.")
            return
        for name, value in self.predictions.items():
            if not tf.is_tensor(value):
                raise TypeError(f"predictions[{name}] must be Tensor, given: {value}")
        if self.mode == ModeKeys.PREDICT and self.export_outputs is None:
            object.__setattr__(self, "export_outputs", {"serving_default": self.predictions})


# (features, labels, mode, params, network) -> spec. `network` is the one argument that tf.estimator did not
# have: TensorFlow 2 keeps variables in objects, so somebody must hold them between the calls.
ModelFn = Callable[[Mapping[str, tf.Tensor], tf.Tensor | None, str, Any, keras.Model], EstimatorSpec]


def minimize(tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence[keras.Variable]) -> TrainOp:
    """The train_op that takes one optimizer step down the gradient of `loss`.

    Args:
        tape: has recorded the computation of `loss`; the model_fn owns it.
        loss: float32 scalar, the mean over this replica's share of the batch.
        variables: what to update.
    """
    return functools.partial(_apply_gradient, tape, loss, variables)


def _apply_gradient(
    tape: tf.GradientTape,
    loss: tf.Tensor,
    variables: Sequence[keras.Variable],
    optimizer: keras.optimizers.Optimizer,
) -> None:
    # Replicas' gradients are summed, so each starts from its share of the mean. The seed of the
    # back-propagation also carries the loss scale, because d(s * loss) = s * d(loss).
    seed = tf.ones_like(loss) / tf.distribute.get_strategy().num_replicas_in_sync
    tensors = [variable.value for variable in variables]
    gradients = tape.gradient(loss, tensors, output_gradients=optimizer.scale_loss(seed))
    optimizer.apply(gradients, variables)


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


class EstimatorModel(keras.Model):
    """A Keras model whose train, test and predict steps are one model_fn in its three modes.

    Compile it with an optimizer alone: loss and metrics come from the model_fn. Inputs are dicts of
    features, targets are labels.
    """

    def __init__(
        self,
        model_fn: ModelFn,
        network: keras.Model,
        params: Any,
        metric_names: Sequence[str] = ("accuracy",),
        num_classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Wrap a model function.

        Args:
            model_fn: the model function.
            network: holds the variables.
            params: handed to the model_fn as it is.
            metric_names: the keys of the model_fn's `eval_metric_ops`; their state is made here, because a
                compiled step must not make variables.
            num_classes: C, for a confusion matrix of each evaluation, out of the `classes` that the
                model_fn predicts; None: no matrix.
            **kwargs: keras.Model's own, such as `dtype`, by which it decides on loss scaling.
        """
        super().__init__(**kwargs)
        self.network = network
        self._model_fn = model_fn
        self._params = params
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._means = {name: keras.metrics.Mean(name=name) for name in metric_names}
        self.confusion = ConfusionMatrix(num_classes) if num_classes else None
        # Steps of the next fit that an earlier one, which was killed, has made: they return at once.
        self.steps_done = 0
        self.built = True

    def compile(self, optimizer: Any, **kwargs: Any) -> None:
        """Keras's own, after which the optimizer has its variables: made by the first step, they would have
        Keras trace that step twice.
        """
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.network.trainable_variables)

    def make_train_function(self, force: bool = False) -> None:
        """As Keras does it, but for steps that are done already and for several workers."""
        if self.train_function is not None and not force:
            return
        step = self._distributed(self.train_step)

        def step_unless_done(iterator: Any) -> dict[str, tf.Tensor]:
            if self.steps_done:
                self.steps_done -= 1
                return {metric.name: metric.result() for metric in self.metrics}
            return step(iterator)

        self.train_function: Any = step_unless_done

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
        if self.confusion is not None:
            self.confusion.reset_state()

    def call(self, inputs: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        """The predictions of the model_fn in PREDICT."""
        predictions = self._spec(inputs, None, ModeKeys.PREDICT).predictions
        assert predictions is not None  # EstimatorSpec sees to it
        return predictions

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update; returns the running means of the epoch."""
        features, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        spec = self._spec(features, labels, ModeKeys.TRAIN)
        assert spec.train_op is not None
        spec.train_op(self.optimizer)
        return self._track(spec, features)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Evaluate one batch; returns the running means."""
        features, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        spec = self._spec(features, labels, ModeKeys.EVAL)
        if self.confusion is not None and spec.predictions and CLASSES in spec.predictions:
            self.confusion.update_state(labels, spec.predictions[CLASSES])
        return self._track(spec, features)

    def predict_step(self, data: Any) -> Mapping[str, tf.Tensor]:
        """Predictions for one batch of features; labels that come with it are left alone."""
        features, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return self.call(features)

    def _spec(
        self, features: Mapping[str, tf.Tensor], labels: tf.Tensor | None, mode: str
    ) -> EstimatorSpec:
        spec = self._model_fn(features, labels, mode, self._params, self.network)
        if not isinstance(spec, EstimatorSpec):
            raise ValueError("model_fn should return an EstimatorSpec.")
        if spec.mode != mode:
            raise ValueError(
                f"model_fn was called in mode {mode!r} and returned a spec of mode {spec.mode!r}."
            )
        return spec

    def _track(self, spec: EstimatorSpec, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        if unknown := set(spec.eval_metric_ops) - set(self._means):
            raise ValueError(
                f"eval_metric_ops has {sorted(unknown)}, metric_names has {sorted(self._means)}."
            )
        examples = tf.shape(next(iter(features.values())))[0]
        self._loss_mean.update_state(spec.loss, sample_weight=tf.cast(examples, tf.float32))
        for name, values in spec.eval_metric_ops.items():
            self._means[name].update_state(values)
        return {metric.name: metric.result() for metric in self.metrics}
