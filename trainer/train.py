"""run_fn: what TFX's Trainer calls."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.trainer.fn_args_utils import FnArgs

from trainer import features, signatures, warmup
from trainer import input as data
from trainer.model import build_model, build_network
from trainer.precision import resolve_precision
from trainer.progress import NonFiniteLossError, Progress
from trainer.recipes import Params, resolve

METRICS_FILE = "metrics.json"
_EVAL_BATCH = 500  # images; evaluation keeps no gradients, so more fit

_LOG = logging.getLogger(__name__)


def run_fn(fn_args: FnArgs) -> None:
    """Train a recipe on the training split, measure it on the validation split, export it.

    Writes the SavedModel to `serving_model_dir`; TensorBoard's files and `metrics.json` to `model_run_dir`.

    Args:
        fn_args: TFX's arguments. `custom_config` has `recipe`, the name of a recipe, and `overrides`,
            fields of trainer.recipes.Params by name. TFX's `train_steps` and `eval_steps` come before the
            recipe's.

    Raises:
        ValueError: for an unknown recipe, override or value, or a data set that cannot be trained on.
        NonFiniteLossError: where the loss became NaN or infinite; nothing is exported.
    """
    params = _params(fn_args)
    strategy = _strategy()
    _LOG.info("%s", _device_line(params, strategy))
    transform = tft.TFTransformOutput(fn_args.transform_output)
    image_shape = tuple(transform.transformed_feature_spec()[features.IMAGE].shape)
    num_classes = _num_classes(fn_args.schema_path)

    budget = data.cache_budget_bytes() // 2
    train = data.read_split(fn_args.train_files, budget)
    validation = data.read_split(fn_args.eval_files, budget)
    steps = params.steps(train.size)
    with strategy.scope():
        model = build_model(params, image_shape, num_classes, steps)
    metrics = _fit(model, params, train, validation, transform, steps, fn_args)

    network = build_network(dataclasses.replace(params, precision="float32"), image_shape, num_classes)
    network.set_weights(model.network.get_weights())
    signatures.export(fn_args.serving_model_dir, network, params, transform)
    warmup.write(fn_args.serving_model_dir, *image_shape[:2])
    _write_metrics(fn_args.model_run_dir, metrics)


def _params(fn_args: FnArgs) -> Params:
    custom: Mapping[str, Any] = fn_args.custom_config or {}
    overrides = dict(custom.get("overrides") or {})
    if fn_args.train_steps:
        overrides |= {"train_steps": fn_args.train_steps, "epochs": None}
    return resolve(custom.get("recipe", "fast"), **overrides)


def _strategy() -> tf.distribute.Strategy:
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Otherwise TensorFlow takes all of the memory, and whatever else runs on the GPU fails.
        tf.config.experimental.set_memory_growth(gpu, True)
    return tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()


def _device_line(params: Params, strategy: tf.distribute.Strategy) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus]
    device = (
        ", ".join(names)
        if names
        else f"CPU, {tf.config.threading.get_intra_op_parallelism_threads() or 'all'} threads"
    )
    return (
        f"training on {device} with {strategy.num_replicas_in_sync} replica(s) in "
        f"{resolve_precision(params.precision)}"
    )


def _num_classes(schema_path: str) -> int:
    schema = text_format.Parse(tf.io.gfile.GFile(schema_path).read(), schema_pb2.Schema())
    for feature in schema.feature:
        if feature.name == features.LABEL and feature.HasField("int_domain"):
            return int(feature.int_domain.max) + 1
    raise ValueError(f"{schema_path}: feature {features.LABEL!r} has no int_domain, so no class count")


def _fit(
    model: keras.Model,
    params: Params,
    train: data.Split,
    validation: data.Split,
    transform: tft.TFTransformOutput,
    steps: int,
    fn_args: FnArgs,
) -> dict[str, Any]:
    steps_per_epoch = min(steps, math.ceil(train.size / params.batch_size))
    epochs = math.ceil(steps / steps_per_epoch)
    on_cpu = not tf.config.list_physical_devices("GPU")
    progress = Progress(steps, steps_per_epoch, params.batch_size, read_each_step=on_cpu)
    board = keras.callbacks.TensorBoard(fn_args.model_run_dir, write_graph=False, profile_batch=0)
    began_at = time.perf_counter()
    history = model.fit(
        data.training_batches(train, transform, params.batch_size, params.seed),
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        validation_data=data.evaluation_batches(validation, transform, _EVAL_BATCH),
        validation_steps=fn_args.eval_steps or None,
        validation_freq=1 if params.validate_each_epoch else epochs,
        callbacks=[progress, board],
        shuffle=False,  # the data set has done it
        verbose=0,
    ).history
    if not math.isfinite(history["val_loss"][-1]):
        # The last update came after the last loss that was looked at.
        raise NonFiniteLossError(steps, history["val_loss"][-1])
    _LOG.info(
        "trained %d steps in %.1f s; validation accuracy %.4f, loss %.4f",
        steps,
        progress.train_seconds,
        history["val_accuracy"][-1],
        history["val_loss"][-1],
    )
    return {
        "steps": steps,
        "train_examples": train.size,
        "validation_examples": validation.size,
        "train_seconds": progress.train_seconds,
        "fit_seconds": time.perf_counter() - began_at,
        "images_per_s": progress.images_per_s,
        "precision": resolve_precision(params.precision),
        "validation_accuracy": history["val_accuracy"][-1],
        "validation_loss": history["val_loss"][-1],
        "history": history,
        "params": dataclasses.asdict(params),
    }


def _write_metrics(directory: str, metrics: Mapping[str, Any]) -> None:
    tf.io.gfile.makedirs(directory)
    with tf.io.gfile.GFile(f"{directory}/{METRICS_FILE}", "w") as file:
        file.write(json.dumps(metrics, indent=2) + "\n")
