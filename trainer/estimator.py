"""What a model function speaks: ModeKeys, EstimatorSpec, RunConfig, minimize.

tf.estimator left TensorFlow after 2.15. Its contract, one function that describes a model in all three
modes, is kept here; its session loop is not: Keras drives (trainer.estimator_model), so that callbacks,
checkpoints, tf.distribute and mixed precision are Keras's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from trainer import export_outputs as exports


class ModeKeys:
    """What a model_fn is called for; the values are tf.estimator's."""

    TRAIN = "train"
    EVAL = "eval"
    PREDICT = "infer"


@dataclass(frozen=True)
class RunConfig:
    """How a run is carried out, as tf.estimator.RunConfig says it; `config` of a model function.

    Attributes:
        model_dir: the model_run artifact: TensorBoard's files, metrics.json, checkpoints.
        tf_random_seed: of weights, shuffling, dropout and augmentation; the recipe's.
        save_checkpoints_steps: steps between two checkpoints; None: seconds count.
        save_checkpoints_secs: least seconds between two checkpoints.
        keep_checkpoint_max: how many checkpoints are kept, the last ones, after the run too.
        log_step_count_steps: steps between two lines of progress; None: two lines a second.
        num_workers: processes that train together.
        is_chief: whether this one writes the results.
    """

    model_dir: str = ""
    tf_random_seed: int = 0
    save_checkpoints_steps: int | None = None
    save_checkpoints_secs: float = 30.0
    keep_checkpoint_max: int = 1
    log_step_count_steps: int | None = None
    num_workers: int = 1
    is_chief: bool = True


class LoggingTensorHook:
    """Has the values of chosen tensors logged each N steps, and drawn by TensorBoard."""

    def __init__(self, tensors: Mapping[str, tf.Tensor], every_n_iter: int) -> None:
        """Make it, for EstimatorSpec.training_hooks.

        Args:
            tensors: scalars of the training step, by the name to show.
            every_n_iter: steps between two lines.

        Raises:
            ValueError: for no steps, or a tensor that is no scalar.
        """
        if every_n_iter <= 0:
            raise ValueError(f"invalid every_n_iter={every_n_iter}.")
        for name, value in tensors.items():
            if not tf.is_tensor(value) or value.shape.rank != 0:
                raise ValueError(f"LoggingTensorHook shows scalar tensors; {name!r} is {value}")
        self.tensors = dict(tensors)
        self.every_n_iter = every_n_iter


@dataclass(frozen=True)
class EstimatorSpec:
    """What a model_fn returns: tf.estimator.EstimatorSpec, without sessions.

    Attributes:
        mode: a ModeKeys value.
        predictions: a tensor, or tensors by name, first dimension N; required in PREDICT.
        loss: float32 scalar or [1], the mean over the batch on this replica; required in TRAIN and EVAL.
        train_op: required in TRAIN. What `minimize` makes: a function that takes the optimizer of the
            recipe and makes one update with it. Or, as in TensorFlow 1, the operation that an optimizer's
            `minimize` returned: it has become part of the step.
        eval_metric_ops: metrics by name: values per example, float [N], of which the runner reports the
            mean over all examples, in TRAIN and EVAL; or, in EVAL, a keras.metrics.Metric that the function
            has updated, or a `(value, update_op)` pair of tf.compat.v1.metrics.
        export_outputs: signatures by name: see trainer.export_outputs.
        training_hooks: keras.callbacks.Callback or LoggingTensorHook.
        training_chief_hooks: the same, where the chief trains alone.
        evaluation_hooks: keras.callbacks.Callback, whose on_test_* methods are called.
        scaffold, prediction_hooks: None or empty: there is no session.

    Raises:
        ValueError, TypeError: where a field that the mode needs is missing or has the wrong form.
    """

    mode: str
    predictions: Any = None
    loss: tf.Tensor | None = None
    train_op: Any = None
    eval_metric_ops: Any = None
    export_outputs: Any = None
    training_chief_hooks: Iterable[Any] | None = None
    training_hooks: Iterable[Any] | None = None
    scaffold: None = None
    evaluation_hooks: Iterable[Any] | None = None
    prediction_hooks: Iterable[Any] | None = None

    def __post_init__(self) -> None:
        # The order of the checks is tf.estimator's.
        if self.mode not in (ModeKeys.TRAIN, ModeKeys.EVAL, ModeKeys.PREDICT):
            raise ValueError(f"Invalid mode: {self.mode!r}.")
        self._check_train_op()
        self._set("loss", self._checked_loss())
        self._set("predictions", self._checked_predictions())
        if self.mode == ModeKeys.PREDICT:
            self._set("export_outputs", exports.checked(self.export_outputs, self.predictions))
        for name in ("training_hooks", "evaluation_hooks", "prediction_hooks", "training_chief_hooks"):
            self._set(name, _checked_hooks(name, getattr(self, name)))
        self._set("eval_metric_ops", _checked_metrics(self.eval_metric_ops))
        if self.scaffold is not None:
            raise TypeError(
                f"scaffold sets up a session, and there is none: leave it out, given: {self.scaffold}"
            )

    @property
    def prediction_dict(self) -> Mapping[str, tf.Tensor]:
        """The predictions by name; a single tensor is called `output`."""
        if isinstance(self.predictions, Mapping):
            return self.predictions
        return {exports.SINGLE_OUTPUT: self.predictions}

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_train_op(self) -> None:
        if self.train_op is None:
            if self.mode == ModeKeys.TRAIN:
                raise ValueError("Missing train_op.")
        elif not callable(self.train_op) and not _is_graph_element(self.train_op):
            raise TypeError(f"train_op must be Operation or Tensor, given: {self.train_op}")

    def _checked_loss(self) -> tf.Tensor | None:
        if self.loss is None:
            if self.mode != ModeKeys.PREDICT:
                raise ValueError("Missing loss.")
            return None
        if not tf.is_tensor(self.loss):
            raise TypeError(f"loss must be Tensor, given: {self.loss}")
        if self.loss.shape.num_elements() not in (None, 1):
            raise ValueError(f"Loss must be scalar, given: {self.loss}")
        return self.loss if self.loss.shape.rank == 0 else tf.reshape(self.loss, [])

    def _checked_predictions(self) -> Any:
        if self.predictions is None:
            if self.mode == ModeKeys.PREDICT:
                raise ValueError("Missing predictions.")
            return {}
        if isinstance(self.predictions, Mapping):
            for name, value in self.predictions.items():
                if not tf.is_tensor(value):
                    raise TypeError(f"predictions[{name}] must be Tensor, given: {value}")
        elif not tf.is_tensor(self.predictions):
            raise TypeError(f"predictions must be Tensor, given: {self.predictions}")
        return self.predictions


def _is_graph_element(value: Any) -> bool:
    return tf.is_tensor(value) or isinstance(value, tf.Operation)


def _checked_hooks(name: str, hooks: Iterable[Any] | None) -> tuple[Any, ...]:
    found = tuple(hooks or ())
    for hook in found:
        if not isinstance(hook, keras.callbacks.Callback | LoggingTensorHook):
            raise TypeError(
                "All hooks must be keras.callbacks.Callback or trainer.estimator.LoggingTensorHook "
                f"instances (a SessionRunHook needs a session), given: {hook}"
            )
    if found and name == "prediction_hooks":
        raise TypeError(f"prediction_hooks: nothing predicts while a run lasts, given: {found}")
    return found


def _checked_metrics(metrics: Any) -> dict[str, Any]:
    if metrics is None:
        return {}
    if not isinstance(metrics, dict):
        raise TypeError(f"eval_metric_ops must be a dict, given: {metrics}")
    for name, value in metrics.items():
        if isinstance(value, keras.metrics.Metric):
            continue
        if tf.is_tensor(value) and value.shape.rank != 0:
            continue  # values per example: see EstimatorSpec
        if not isinstance(value, tuple) or len(value) != 2:
            raise TypeError(
                "Values of eval_metric_ops must be (metric_value, update_op) tuples, given: "
                f"{value} for key: {name}"
            )
        if not tf.is_tensor(value[1]):
            raise TypeError(
                f"update_op of eval_metric_ops must be Tensor, given: {value[1]} for key: {name}"
            )
    return dict(metrics)


def minimize(
    tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence[keras.Variable]
) -> Callable[[keras.optimizers.Optimizer], None]:
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
