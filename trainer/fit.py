"""One training run: Keras's fit, and the callbacks around it."""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft

from trainer import batches, devices, features
from trainer.augmentation import augmentation
from trainer.callbacks.backup import Backup
from trainer.callbacks.best_weights import BestWeights
from trainer.callbacks.progress import NonFiniteLossError, Progress
from trainer.callbacks.tensorboard import TensorBoard
from trainer.checkpoints import Store
from trainer.estimator import EstimatorModel
from trainer.precision import resolve_precision
from trainer.recipes import Params

EVAL_BATCH = 500  # images; evaluation keeps no gradients, so more fit
_PREVIEW_IMAGES = 16

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
    model_run_dir: str,
    eval_steps: int | None = None,
) -> dict[str, Any]:
    """Train to the end, from the last checkpoint of a killed run if there is one.

    Args:
        model: compiled; has the trained weights afterwards.
        params: the recipe.
        splits: the data.
        steps: optimizer steps of the whole run.
        store: where checkpoints are.
        model_run_dir: where TensorBoard's files go.
        eval_steps: how many validation batches to read; None or 0: all.

    Returns:
        The content of metrics.json: what was trained, how fast, how well, epoch by epoch.

    Raises:
        NonFiniteLossError: where the loss became NaN or infinite.
    """
    checkpoint = store.latest()
    first_step = checkpoint.step if checkpoint else 0
    if first_step:
        _LOG.info("going on from step %d of an earlier run", first_step)
    steps_per_epoch = min(steps, math.ceil(splits.train.size / params.batch_size))
    epochs = math.ceil(steps / steps_per_epoch)
    first_epoch = min(first_step // steps_per_epoch, epochs - 1)
    model.steps_done = first_step - first_epoch * steps_per_epoch
    on_cpu = not tf.config.list_physical_devices("GPU")
    progress = Progress(steps, steps_per_epoch, params.batch_size, on_cpu, first_step)
    best = BestWeights(params.keep == "best", params.patience)
    backup = Backup(store, checkpoint, progress, best)
    callbacks: list[keras.callbacks.Callback] = [progress, best, backup]
    if params.weight_average:
        callbacks.append(keras.callbacks.SwapEMAWeights())
    if devices.is_chief():
        callbacks.append(TensorBoard(model_run_dir, progress, best, _preview(params, splits)))
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
        callbacks=callbacks,
        shuffle=False,  # the data set has done it
        verbose=0,
    )
    history = backup.history
    if not math.isfinite(history["val_loss"][-1]):
        # The last update came after the last loss that was looked at.
        raise NonFiniteLossError(steps, history["val_loss"][-1])
    _LOG.info(
        "trained %d steps in %.1f s; validation accuracy %.4f, loss %.4f",
        progress.step,
        backup.seconds,
        history["val_accuracy"][-1],
        history["val_loss"][-1],
    )
    return {
        "steps": progress.step,
        "resumed_at_step": first_step,
        "train_examples": splits.train.size,
        "validation_examples": splits.validation.size,
        "train_seconds": backup.seconds,
        "images_per_s": progress.images_per_s,
        "precision": resolve_precision(params.precision),
        "validation_accuracy": best.accuracy if params.keep == "best" else history["val_accuracy"][-1],
        "validation_loss": history["val_loss"][-1],
        "validation_confusion": None if best.confusion is None else best.confusion.tolist(),
        "history": history,
        "params": dataclasses.asdict(params),
    }


def _sharded(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """For several workers: each takes its share of every batch, whatever the files are."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.with_options(options)


def _preview(params: Params, splits: Splits) -> tf.Tensor | None:
    """Some training images as the recipe changes them, drawn by a generator of their own."""
    augment = augmentation(params)
    if augment is None:
        return None
    images = batches.training_batches(splits.train, splits.transform, _PREVIEW_IMAGES, params.seed)
    inputs, _ = next(iter(images))
    return augment(inputs[features.IMAGE], training=True)
