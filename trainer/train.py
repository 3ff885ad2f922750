"""run_fn: what TFX's Trainer calls."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from trainer import (
    base_files,
    base_network,
    devices,
    features,
    lite,
    run_metrics,
    samples,
    signatures,
    warmup,
    workers,
)
from trainer.batches import CACHE_BYTES, evaluation_batches, read_split, training_batches
from trainer.callbacks.progress import NonFiniteLossError
from trainer.checkpoints import Store
from trainer.estimator import RunConfig
from trainer.estimator_model import EstimatorModel
from trainer.fit import Splits
from trainer.phases import HEAD, Phases
from trainer.precision import precision_of
from trainer.recipes import Params, resolve
from trainer.schema import num_classes
from trainer.user_functions import UserFunctions
from trainer.warm_start import START_SETTINGS, Start

_LOG = logging.getLogger(__name__)


def run_fn(fn_args: FnArgs) -> None:
    """Train a recipe on the training split, measure it on the validation split, export it.

    Writes the SavedModel to `serving_model_dir`; TensorBoard's files and `metrics.json` to `model_run_dir`,
    and checkpoints while it lasts. Where an execution of the same training was killed, this one goes on
    from its last checkpoint. Of several workers only the chief writes; one that fails ends all of them.

    Args:
        fn_args: TFX's arguments. `custom_config` may have
            `recipe`, the name of a recipe, and `overrides`, fields of trainer.recipes.Params by name (TFX's
            `train_steps` and `eval_steps` come before the recipe's);
            `model_fn`, `build_network` and `callbacks`, dotted paths of functions: see
            trainer.user_functions;
            `run_config`, fields of trainer.estimator.RunConfig by name;
            `warm_start_checkpoint`, `continue` and so on: what to do with `base_model`, a folder with
            values to begin with: see trainer.warm_start;
            `base_fingerprint`, of the files that `base` and `base_weights` of the recipe name;
            `lite`, float16 or int8: write a LiteRT model too, see trainer.lite;
            `gpus`, the least number of GPUs that must be visible;
            `workers`, processes of this machine that train together;
            `checkpoint_dir`, a folder that outlives this execution;
            `images`, what Transform's graph was told of them, and `class_names`, by label;
            `code`, a fingerprint of the code.

    Raises:
        ValueError: for an unknown recipe, override, value or function, data that cannot be trained on, or
            values to begin with that do not fit.
        devices.MissingGpuError: for fewer GPUs than asked for.
        NonFiniteLossError: where the loss became NaN or infinite; nothing is exported.
        workers.WorkerError: with what any of these said, where there are several workers.
    """
    count = (fn_args.custom_config or {}).get("workers", 1)
    if count == 1:
        _train(fn_args)
        return
    given = copy.copy(fn_args)
    given.data_accessor = None  # functions of this process, which nothing here calls
    workers.train_together(functools.partial(_train, given), count)


def _train(fn_args: FnArgs) -> None:
    settings: Mapping[str, Any] = fn_args.custom_config or {}
    params = _params(fn_args, settings)
    base_files.check(params, settings.get("base_fingerprint", ""))
    functions = UserFunctions.load(settings)
    strategy = devices.build_strategy(settings.get("gpus", 0))
    params = params.scaled(strategy.num_replicas_in_sync)
    config = _run_config(fn_args, settings, params)

    transform = tft.TFTransformOutput(fn_args.transform_output)
    image_shape = features.ImageShape(*transform.transformed_feature_spec()[features.IMAGE].shape)
    classes = num_classes(fn_args.schema_path)
    budget = CACHE_BYTES // settings.get("workers", 1)
    splits = Splits(
        read_split(fn_args.train_files, budget), read_split(fn_args.eval_files, budget), transform
    )
    start = Start.of(settings, fn_args.base_model)
    steps = params.steps(splits.train.size) + (start.step if start else 0)
    with strategy.scope():
        trained, traced = functions.build(params, image_shape, classes, steps, config)
    _LOG.info("%s", devices.describe(strategy, precision_of(trained.given_network)))
    identity = _identity(params, settings, splits, fn_args.base_model)
    store, head_store = (
        Store(
            folder,
            name,
            settings.get("checkpoint_dir", ""),
            config.save_checkpoints_secs,
            config.save_checkpoints_steps,
            config.keep_checkpoint_max,
        )
        for folder, name in (
            (fn_args.model_run_dir, identity),
            (f"{fn_args.model_run_dir}/{HEAD}", f"{identity}-{HEAD}"),
        )
    )
    callbacks = functions.callbacks(params, config, traced)
    phases = Phases(
        functions, traced, params, splits, config, strategy, classes, callbacks, fn_args.eval_steps
    )
    try:
        metrics = phases.run(trained, start, store, head_store)
    except NonFiniteLossError:
        # Going on from there would end the same way.
        if config.is_chief:
            store.remove()
            head_store.remove()
        raise
    metrics["train_examples"] = splits.train.size  # computed features may be twice as many: mirror images
    fingerprint = _fingerprint(trained)
    # What should agree does: several workers, several runs of one seed.
    _LOG.info("weights: %s", fingerprint)
    if not config.is_chief:
        return
    exact = functions.in_float32(trained, params, image_shape, classes, config)
    images = _images(settings, image_shape)
    names = settings.get("class_names") or [str(label) for label in range(classes)]
    exports = signatures.export(fn_args.serving_model_dir, exact, images, names, transform)
    warmup.write(fn_args.serving_model_dir, images, exports)
    validation = evaluation_batches(splits.validation, transform, 500)
    samples.write(fn_args.serving_model_dir, validation, images, names)
    if not functions.own:
        base_network.describe(fn_args.serving_model_dir, params, image_shape, classes)
    if kind := settings.get("lite"):
        inputs, _ = next(iter(training_batches(splits.train, transform, lite.EXAMPLES, params.seed)))
        lite.write(fn_args.serving_model_dir, exact, image_shape, kind, inputs[features.IMAGE])
    run_metrics.write(fn_args.model_run_dir, metrics | {"weights_sha256": fingerprint})
    store.finish()


def _params(fn_args: FnArgs, settings: Mapping[str, Any]) -> Params:
    overrides = dict(settings.get("overrides") or {})
    if fn_args.train_steps:
        overrides |= {"train_steps": fn_args.train_steps, "epochs": None}
    return resolve(settings.get("recipe", "fast"), **overrides)


def _run_config(fn_args: FnArgs, settings: Mapping[str, Any], params: Params) -> RunConfig:
    return RunConfig(
        **(settings.get("run_config") or {}),
        model_dir=fn_args.model_run_dir,
        tf_random_seed=params.seed,
        num_workers=devices.worker_count(),
        is_chief=devices.is_chief(),
    )


def _images(settings: Mapping[str, Any], shape: features.ImageShape) -> features.ImageInput:
    given = settings.get("images")
    if given:
        return features.ImageInput.of(given)
    return features.ImageInput(shape, fit=features.FIT_CENTER if shape.channels == 1 else "crop")


def _identity(params: Params, settings: Mapping[str, Any], splits: Splits, base_model: str | None) -> str:
    """Equal for two trainings that take the same steps."""
    what = {
        "params": dataclasses.asdict(params),
        "settings": {
            name: value
            for name, value in settings.items()
            if name
            in ("model_fn", "build_network", "callbacks", "code", "base_fingerprint", *START_SETTINGS)
        },
        "base_model": base_model,
        "files": [(file, tf.io.gfile.stat(file).length) for file in splits.train.files],
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _fingerprint(trained: EstimatorModel) -> str:
    digest = hashlib.sha256()
    for weights in trained.network.get_weights():
        digest.update(weights.tobytes())
    return digest.hexdigest()
