"""One training run: Keras's fit, and the callbacks around it."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from trainer import batches, features
from trainer.augmentation import augmentation
from trainer.callbacks.backup import Backup
from trainer.callbacks.best_weights import BestWeights
from trainer.callbacks.log_tensors import LogTensors
from trainer.callbacks.progress import NonFiniteLossError, Progress, in_words
from trainer.callbacks.tensorboard import TensorBoard
from trainer.checkpoints import Store
from trainer.estimator import LoggingTensorHook, RunConfig
from trainer.estimator_model import SUMMARY_EVERY_STEPS, EstimatorModel
from trainer.networks.layers import adapt
from trainer.precision import precision_of
from trainer.recipes import Params
from trainer.warm_start import Start

EVAL_BATCH = 500  # images; evaluation keeps no gradients, so more fit
_PREVIEW_IMAGES = 16
_ADAPT_IMAGES = 2000

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """What to train on, what to select by, and the graph that makes features of both."""

    train: batches.Split
    validation: batches.Split
    transform: tft.TFTransformOutput


def fit(
    model: EstimatorModel,
    params: Params,
    splits: Splits,
    steps: int,
    store: Store,
    config: RunConfig,
    eval_steps: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    logged: Sequence[LoggingTensorHook] = (),
    summaries: bool = False,
    start: Start | None = None,
) -> dict[str, Any]:
    """Train to the end, from the last checkpoint of a killed run if there is one.

    Args:
        model: compiled; has the trained weights afterwards.
        params: the recipe.
        splits: the data.
        steps: optimizer steps of the whole run.
        store: where checkpoints are.
        config: how often to log, and where TensorBoard's files go.
        eval_steps: how many validation batches to read; None or 0: all.
        callbacks: of the user's.
        logged: tensors that the model function wants to have logged.
        summaries: whether the model function may write any with tf.summary.
        start: what to begin with; None: with new weights.

    Returns:
        The content of metrics.json: what was trained, how fast, how well, epoch by epoch.

    Raises:
        NonFiniteLossError: where the loss became NaN or infinite.
        ValueError: where the values to begin with do not fit the model.
    """
    adapt_to(splits, model, params)
    checkpoint = store.latest()
    if start and not checkpoint:
        if start.goes_on:
            checkpoint = start.checkpoint(model)
        else:
            start.apply(model)
    first_step = checkpoint.step if checkpoint else 0
    if first_step:
        _LOG.info("going on from step %d of an earlier run", first_step)
    steps_per_epoch = min(steps, math.ceil(splits.train.size / params.batch_size))
    epochs = math.ceil(steps / steps_per_epoch)
    first_epoch = min(first_step // steps_per_epoch, epochs - 1)
    model.steps_done = first_step - first_epoch * steps_per_epoch
    on_cpu = not tf.config.list_physical_devices("GPU")
    progress = Progress(
        steps, steps_per_epoch, params.batch_size, on_cpu, first_step, config.log_step_count_steps
    )
    best = BestWeights(params.keep == "best", params.patience)
    backup = Backup(store, checkpoint, progress, best)
    ours: list[keras.callbacks.Callback] = [progress, best, backup]
    if params.weight_average:
        ours.append(keras.callbacks.SwapEMAWeights())
    if config.is_chief:
        ours.append(TensorBoard(config.model_dir, progress, best, _preview(params, splits)))
    model.summary_writer = tf.summary.create_file_writer(f"{config.model_dir}/train") if summaries else None
    model.summary_every_steps = config.log_step_count_steps or SUMMARY_EVERY_STEPS
    for hook in logged:
        folder = f"{config.model_dir}/train" if config.is_chief else ""
        ours.append(LogTensors([*hook.tensors], hook.every_n_iter, progress, folder))
    model.fit(
        _sharded(
            batches.training_batches(
                splits.train, splits.transform, params.batch_size, params.seed, first_step
            )
        ),
        initial_epoch=first_epoch,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        validation_data=_sharded(
            batches.evaluation_batches(splits.validation, splits.transform, EVAL_BATCH)
        ),
        validation_steps=eval_steps or None,
        validation_freq=1 if params.validate_each_epoch else epochs,
        callbacks=[*ours, *callbacks],
        shuffle=False,  # the data set has done it
        verbose=0,
    )
    if model.summary_writer:
        model.summary_writer.close()
    history = backup.history
    if not math.isfinite(history["val_loss"][-1]):
        # The last update came after the last loss that was looked at.
        raise NonFiniteLossError(steps, history["val_loss"][-1])
    measured = {
        name.removeprefix("val_"): values[-1] for name, values in history.items() if name.startswith("val_")
    }
    if params.keep == "best":
        measured["accuracy"] = best.accuracy
    _LOG.info(
        "trained %d steps in %.1f s; validation: %s", progress.step, backup.seconds, in_words(measured)
    )
    training = {
        "resumed_at_step": first_step,
        "train_seconds": backup.seconds,
        "images_per_s": progress.images_per_s,
        "history": history,
    }
    return _report(model, params, splits, progress.step, measured, best.confusion, training)


def measure(
    model: EstimatorModel,
    params: Params,
    splits: Splits,
    start: Start | None,
    eval_steps: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Measure what there is to begin with, without a step of training.

    Args:
        model: compiled; has the values afterwards.
        params: the recipe.
        splits: the data.
        start: the values; None: the model has them.
        eval_steps: how many validation batches to read; None or 0: all.
        callbacks: of the user's.

    Returns:
        The content of metrics.json, as fit.

    Raises:
        ValueError: where the values do not fit the model.
    """
    step = start.step if start else 0
    if start:
        start.apply(model)
    if start and start.goes_on and params.weight_average:
        model.optimizer.finalize_variable_values(model.network.trainable_variables)
    validation = _sharded(batches.evaluation_batches(splits.validation, splits.transform, EVAL_BATCH))
    measured = model.evaluate(
        validation, steps=eval_steps or None, callbacks=[*callbacks], verbose=0, return_dict=True
    )
    measured = {name: float(value) for name, value in measured.items()}
    _LOG.info("step %d, validation: %s", step, in_words(measured))
    training = {"resumed_at_step": step, "train_seconds": 0.0, "images_per_s": 0.0, "history": {}}
    counts = model.confusion.result().numpy() if model.confusion is not None else None
    return _report(model, params, splits, step, measured, counts, training)


def _report(
    model: EstimatorModel,
    params: Params,
    splits: Splits,
    step: int,
    measured: Mapping[str, float],
    confusion: np.ndarray | None,
    training: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "steps": step,
        "train_examples": splits.train.size,
        "validation_examples": splits.validation.size,
        "precision": precision_of(model.network if isinstance(model.network, keras.Model) else None),
        "validation_accuracy": measured.get("accuracy"),
        "validation_loss": measured["loss"],
        "validation_metrics": {**measured, "global_step": step},
        "validation_confusion": None if confusion is None else confusion.tolist(),
        "params": dataclasses.asdict(params),
        **training,
    }


def adapt_to(splits: Splits, model: EstimatorModel, params: Params) -> None:
    """Let layers that are computed from pictures look at some of the training split."""
    network = model.given_network
    if not isinstance(network, keras.Model) or not any(hasattr(layer, "adapt") for layer in network.layers):
        return
    count = min(_ADAPT_IMAGES, splits.train.size)
    inputs, _ = next(iter(batches.training_batches(splits.train, splits.transform, count, params.seed)))
    adapt(network, inputs[features.IMAGE])


def _sharded(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """For several workers: each takes its share of every batch, whatever the files are."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def _preview(params: Params, splits: Splits) -> tf.Tensor | None:
    """Some training images as the recipe changes them, drawn by generators of their own."""
    layers = augmentation(params)
    if not layers or splits.train.computed is not None:
        return None
    batches_of_a_few = batches.training_batches(
        splits.train, splits.transform, _PREVIEW_IMAGES, params.seed
    )
    inputs, _ = next(iter(batches_of_a_few))
    images = inputs[features.IMAGE]
    for layer in layers:
        images = layer(images, training=True)
    return tf.clip_by_value(images, 0.0, 1.0)
