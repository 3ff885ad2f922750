"""tuner_fn: what TFX's Tuner calls to look for better hyper-parameters of a recipe."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import keras_tuner
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainer import batches, features
from trainer.callbacks.progress import Progress
from trainer.estimator import RunConfig
from trainer.fit import EVAL_BATCH, Splits, adapt_to
from trainer.recipes import Params, resolve
from trainer.schema import num_classes
from trainer.user_functions import UserFunctions

OBJECTIVE = "val_accuracy"
TRIALS = 10


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Describe a Bayesian search around a recipe, by accuracy on the validation split.

    Args:
        fn_args: TFX's arguments; `custom_config` as in trainer.train.run_fn, and `trials`.

    Raises:
        ValueError: for an unknown recipe, override or value.
    """
    settings: Mapping[str, Any] = fn_args.custom_config or {}
    base = resolve(settings.get("recipe", "fast"), **dict(settings.get("overrides") or {}))
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    splits = Splits(
        batches.read_split(fn_args.train_files, batches.CACHE_BYTES),
        batches.read_split(fn_args.eval_files, batches.CACHE_BYTES),
        transform,
    )
    image_shape = features.ImageShape(*transform.transformed_feature_spec()[features.IMAGE].shape)
    recipe = _Recipe(
        UserFunctions.load(settings), base, splits, image_shape, num_classes(fn_args.schema_path)
    )
    tuner = keras_tuner.Tuner(
        _RecipeFirst(
            keras_tuner.Objective(OBJECTIVE, direction="max"),
            settings.get("trials", TRIALS),
            seed=base.seed,
        ),
        recipe,
        directory=fn_args.working_dir,
        overwrite=True,
    )
    return TunerFnResult(tuner=tuner, fit_kwargs={})


def declare(space: keras_tuner.HyperParameters, base: Params) -> dict[str, Any]:
    """The search space around a recipe: the first trial is the recipe itself.

    Args:
        space: gets the hyper-parameters, by the names of Params.
        base: the recipe.

    Returns:
        The values of this trial.
    """
    rate = base.learning_rate
    values = {
        "learning_rate": space.Float("learning_rate", rate / 4, rate * 4, sampling="log", default=rate),
        "batch_size": space.Choice(
            "batch_size",
            [max(1, base.batch_size // 2), base.batch_size, base.batch_size * 2],
            default=base.batch_size,
        ),
        "dropout": space.Float("dropout", 0.0, 0.6, step=0.1, default=round(base.dropout, 1)),
        "label_smoothing": space.Float(
            "label_smoothing", 0.0, 0.1, step=0.02, default=base.label_smoothing
        ),
    }
    if base.weight_decay:
        decay = base.weight_decay
        values["weight_decay"] = space.Float(
            "weight_decay", decay / 10, decay * 10, sampling="log", default=decay
        )
    if base.shift:
        values["shift"] = space.Int("shift", 1, max(3, base.shift), default=base.shift)
    return values


class _RecipeFirst(keras_tuner.oracles.BayesianOptimizationOracle):
    """A Bayesian search whose first trial has the defaults; KerasTuner's own begins with random values."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of the next trial."""
        if not self.trials:
            values = {parameter.name: parameter.default for parameter in self.get_space().space}
            return {"status": "RUNNING", "values": values}
        found: dict[str, Any] = super().populate_space(trial_id)
        return found


class _Recipe(keras_tuner.HyperModel):
    """Trains one trial."""

    def __init__(
        self,
        functions: UserFunctions,
        base: Params,
        splits: Splits,
        image_shape: features.ImageShape,
        classes: int,
    ) -> None:
        super().__init__(name="recipe")
        self._functions = functions
        self._base, self._splits = base, splits
        self._image_shape, self._classes = image_shape, classes

    def build(self, space: keras_tuner.HyperParameters) -> keras.Model:
        """The compiled model of a trial."""
        params = self._params(space)
        made, traced = self._functions.build(
            params,
            self._image_shape,
            self._classes,
            self._steps(params),
            RunConfig(tf_random_seed=params.seed),
        )
        if "accuracy" not in (*traced.values, *traced.running):
            raise ValueError(
                "a search goes by the metric 'accuracy', which the model function does not report"
            )
        return made

    def fit(
        self, space: keras_tuner.HyperParameters, trained: keras.Model, **kwargs: Any
    ) -> dict[str, float]:
        """Train it to its end, measure it once. `kwargs` has KerasTuner's callbacks, which save models."""
        del kwargs
        params = self._params(space)
        steps = self._steps(params)
        training = batches.training_batches(
            self._splits.train, self._splits.transform, params.batch_size, params.seed
        )
        adapt_to(self._splits, trained, params)
        on_cpu = not tf.config.list_physical_devices("GPU")
        trained.fit(
            training,
            steps_per_epoch=steps,
            callbacks=[Progress(steps, steps, params.batch_size, on_cpu)],
            shuffle=False,
            verbose=0,
        )
        validation = batches.evaluation_batches(self._splits.validation, self._splits.transform, EVAL_BATCH)
        accuracy = trained.evaluate(validation, verbose=0, return_dict=True)["accuracy"]
        return {OBJECTIVE: accuracy if math.isfinite(accuracy) else 0.0}

    def _params(self, space: keras_tuner.HyperParameters) -> Params:
        return dataclasses.replace(self._base, **declare(space, self._base))

    def _steps(self, params: Params) -> int:
        return params.steps(self._splits.train.size)
