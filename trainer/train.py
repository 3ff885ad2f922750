"""run_fn: what TFX's Trainer calls."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from trainer import devices, dotted_path, features, model, run_metrics, samples, signatures, warmup
from trainer.batches import cache_budget_bytes, evaluation_batches, read_split
from trainer.callbacks.progress import NonFiniteLossError
from trainer.checkpoints import SAVE_EVERY_S, Store
from trainer.fit import Splits, fit
from trainer.precision import resolve_precision
from trainer.recipes import Params, resolve
from trainer.schema import num_classes

_LOG = logging.getLogger(__name__)


def run_fn(fn_args: FnArgs) -> None:
    """Train a recipe on the training split, measure it on the validation split, export it.

    Writes the SavedModel to `serving_model_dir`; TensorBoard's files and `metrics.json` to `model_run_dir`,
    and checkpoints while it lasts. Where an execution of the same training was killed, this one goes on
    from its last checkpoint. Of several workers only the chief writes.

    Args:
        fn_args: TFX's arguments. `custom_config` may have
            `recipe`, the name of a recipe, and `overrides`, fields of trainer.recipes.Params by name (TFX's
            `train_steps` and `eval_steps` come before the recipe's);
            `model_fn` and `build_network`, dotted paths of functions to use instead of trainer.model's;
            `gpus`, the least number of GPUs that must be visible;
            `checkpoint_dir`, a folder that outlives this execution, and `checkpoint_every_s`;
            `code`, a fingerprint of the code.

    Raises:
        ValueError: for an unknown recipe, override, value or function, or data that cannot be trained on.
        devices.MissingGpuError: for fewer GPUs than asked for.
        NonFiniteLossError: where the loss became NaN or infinite; nothing is exported.
    """
    settings: Mapping[str, Any] = fn_args.custom_config or {}
    params = _params(fn_args, settings)
    model_fn = _custom(settings, "model_fn") or model.model_fn
    build_network = _custom(settings, "build_network") or model.build_network
    strategy = devices.build_strategy(settings.get("gpus", 0))
    params = params.scaled(strategy.num_replicas_in_sync)
    _LOG.info("%s", devices.describe(strategy, resolve_precision(params.precision)))

    transform = tft.TFTransformOutput(fn_args.transform_output)
    image_shape = features.ImageShape(*transform.transformed_feature_spec()[features.IMAGE].shape)
    classes = num_classes(fn_args.schema_path)
    budget = cache_budget_bytes() // 2
    splits = Splits(
        read_split(fn_args.train_files, budget), read_split(fn_args.eval_files, budget), transform
    )
    steps = params.steps(splits.train.size)
    with strategy.scope():
        trained = model.build_model(params, image_shape, classes, steps, model_fn, build_network)
    store = Store(
        fn_args.model_run_dir,
        _identity(params, settings, splits),
        settings.get("checkpoint_dir", ""),
        settings.get("checkpoint_every_s", SAVE_EVERY_S),
    )
    try:
        metrics = fit(trained, params, splits, steps, store, fn_args.model_run_dir, fn_args.eval_steps)
    except NonFiniteLossError:
        store.remove()  # Going on from there would end the same way.
        raise
    fingerprint = _fingerprint(trained.network)
    # What should agree does: several workers, several runs of one seed.
    _LOG.info("weights: %s", fingerprint)
    if not devices.is_chief():
        return
    network = build_network(dataclasses.replace(params, precision="float32"), image_shape, classes)
    network.set_weights(trained.network.get_weights())
    signatures.export(fn_args.serving_model_dir, network, params, transform, model_fn)
    warmup.write(fn_args.serving_model_dir, image_shape)
    samples.write(fn_args.serving_model_dir, evaluation_batches(splits.validation, transform, 500))
    run_metrics.write(fn_args.model_run_dir, metrics | {"weights_sha256": fingerprint})
    store.remove()


def _params(fn_args: FnArgs, settings: Mapping[str, Any]) -> Params:
    overrides = dict(settings.get("overrides") or {})
    if fn_args.train_steps:
        overrides |= {"train_steps": fn_args.train_steps, "epochs": None}
    return resolve(settings.get("recipe", "fast"), **overrides)


def _custom(settings: Mapping[str, Any], name: str) -> Any:
    path = settings.get(name)
    return dotted_path.load(path, f"trainer.{name}") if path else None


def _identity(params: Params, settings: Mapping[str, Any], splits: Splits) -> str:
    """Equal for two trainings that take the same steps."""
    what = {
        "params": dataclasses.asdict(params),
        "functions": [settings.get("model_fn"), settings.get("build_network"), settings.get("code")],
        "files": [(file, tf.io.gfile.stat(file).length) for file in splits.train.files],
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _fingerprint(network: keras.Model) -> str:
    digest = hashlib.sha256()
    for weights in network.get_weights():
        digest.update(weights.tobytes())
    return digest.hexdigest()
