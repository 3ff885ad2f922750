"""The functions that a run is made of: trainer.model's, or the user's, by dotted path."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from trainer import dotted_path, features, frozen, model
from trainer.estimator import RunConfig
from trainer.estimator_model import ONE_DEVICE, PER_EXAMPLE, EstimatorModel, Traced
from trainer.features import ImageShape
from trainer.hints import hint
from trainer.model_function import ModelFunction
from trainer.networks import retrain
from trainer.optimizers import build_optimizer
from trainer.recipes import Params
from trainer.warm_start import Start

# What the Evaluator, the report and `mnist query` read.
_NEEDED = (features.CLASSES, features.PROBABILITIES)


@dataclass(frozen=True)
class UserFunctions:
    """What makes a model, and what looks on while it is trained.

    Attributes:
        model_fn: the model function.
        build_network: makes the layers for it.
        make_callbacks: a function of (params, config) that returns Keras callbacks; None: there are none.
    """

    model_fn: Callable[..., Any] = model.model_fn
    build_network: Callable[..., keras.Model] = model.build_network
    make_callbacks: Callable[..., Sequence[keras.callbacks.Callback]] | None = None

    @classmethod
    def load(cls, settings: Mapping[str, Any]) -> UserFunctions:
        """Import what `model_fn`, `build_network` and `callbacks` name, where they are set.

        Raises:
            ValueError: one line that says what is wrong with a path or with a function's arguments.
        """
        names = {"model_fn": "model_fn", "build_network": "build_network", "callbacks": "make_callbacks"}
        found = cls(
            **{
                field: dotted_path.load(settings[name], f"trainer.{name}")
                for name, field in names.items()
                if settings.get(name)
            }
        )
        ModelFunction(found.model_fn)
        return found

    @property
    def own(self) -> bool:
        """Whether a model is made by functions that this project does not know."""
        return (self.model_fn, self.build_network) != (model.model_fn, model.build_network)

    def build(
        self, params: Params, shape: ImageShape, num_classes: int, steps: int, config: RunConfig
    ) -> tuple[EstimatorModel, Traced]:
        """A compiled model, and what its function says; a function of the user's is traced for that.

        Raises:
            ValueError: one line that says what is wrong with the function, and in which line of it.
        """
        if not self.own:
            made = model.build_model(params, shape, num_classes, steps, config=config)
            return made, Traced(values=features.METRICS[1:])
        name = f"model_fn ({ModelFunction(self.model_fn).__name__})"
        try:
            made = model.build_model(
                params, shape, num_classes, steps, self.model_fn, self.build_network, config
            )
            traced = made.trace(
                {features.IMAGE: tf.TensorSpec(shape, tf.float32)},
                tf.TensorSpec([], tf.int64),
                params.batch_size,
            )
        except Exception as error:
            codes = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
            if self.build_network is not model.build_network and codes & {_code(self.build_network)}:
                name = f"build_network ({self.build_network.__module__}.{self.build_network.__qualname__})"
            raise ValueError(f"{name}: {_in_one_line(error)}") from error
        reported = (*traced.values, *traced.running)
        if (params.keep == "best" or params.patience) and "accuracy" not in reported:
            raise ValueError(
                f"{name}: trainer.keep=best and trainer.patience go by the metric 'accuracy', and "
                f"eval_metric_ops has {list(reported)}"
            )
        return made, traced

    def callbacks(
        self, params: Params, config: RunConfig, traced: Traced
    ) -> list[keras.callbacks.Callback]:
        """The user's: those of `trainer.callbacks`, and those that the model function returned as hooks.

        Raises:
            ValueError: where `trainer.callbacks` returned something else, or could not.
        """
        try:
            made = list(self.make_callbacks(params, config)) if self.make_callbacks else []
        except Exception as error:
            raise ValueError(
                f"trainer.callbacks: {_in_one_line(error)}: it is a function of (params, config) that "
                "returns a list of Keras callbacks"
            ) from error
        for callback in made:
            if not isinstance(callback, keras.callbacks.Callback):
                raise ValueError(f"trainer.callbacks: this is no keras.callbacks.Callback: {callback}")
        return [*made, *traced.callbacks, *(traced.chief_callbacks if config.is_chief else ())]

    def head(
        self, network: keras.Model, params: Params, num_classes: int, steps: int, config: RunConfig
    ) -> EstimatorModel:
        """A compiled model of the layers after a frozen base, which are the network's own."""
        return self._around(frozen.head_of(network), params, num_classes, steps, config)

    def fine_tuned(
        self, network: keras.Model, params: Params, num_classes: int, steps: int, config: RunConfig
    ) -> EstimatorModel:
        """A compiled model of the network whose last layers of the base are not frozen any more."""
        retrain.unfreeze(network, params.fine_tune)
        return self._around(network, params.fine_tuning, num_classes, steps, config)

    def _around(
        self, network: keras.Model, params: Params, num_classes: int, steps: int, config: RunConfig
    ) -> EstimatorModel:
        shape = network.input.shape[1:]
        made = model.build_model(
            params, shape, num_classes, steps, self.model_fn, lambda *_: network, config
        )
        if self.own:
            made.trace(
                {features.IMAGE: tf.TensorSpec(shape, tf.float32)},
                tf.TensorSpec([], tf.int64),
                params.batch_size,
            )
        return made

    def in_float32(
        self,
        trained: EstimatorModel,
        params: Params,
        shape: ImageShape,
        num_classes: int,
        config: RunConfig,
    ) -> EstimatorModel:
        """The model to export: the trained weights in layers that compute in float32."""
        if trained.given_network is None:
            return trained
        network = self.build_network(dataclasses.replace(params, precision="float32"), shape, num_classes)
        network.set_weights(trained.given_network.get_weights())
        exact = EstimatorModel(ModelFunction(self.model_fn), network, params, config=config)
        exact.graph_variables = trained.graph_variables
        return exact


def check(
    settings: Mapping[str, Any],
    params: Params,
    shape: ImageShape,
    num_classes: int,
    start_folder: str | None = None,
) -> Sequence[str]:
    """Find out before the first node runs whether the Trainer could go through.

    Makes the optimizer, traces the user's functions, and compares the model with what it begins with.

    Args:
        settings: as trainer.train.run_fn gets them.
        params: the recipe.
        shape: of the images.
        num_classes: C.
        start_folder: where the values of `warm_start_from` are; None: not on this machine.

    Returns:
        The metrics that an evaluation reports, by name.

    Raises:
        ValueError: one line: what is wrong, in which mode, and in which line of the user's file.
    """
    functions = UserFunctions.load(settings)
    build_optimizer(params, steps=1)
    start = Start.of(settings, start_folder)
    if not functions.own and not start and not params.base:
        return features.METRICS
    function = ModelFunction(functions.model_fn)
    several = next((name for name in ("gpus", "workers") if settings.get(name, 0) > 1), "")
    replicas = f"model_fn ({function.__name__}): trainer.{several}={settings.get(several)}"
    if several and not function.takes_network:
        raise ValueError(f"{replicas}: {ONE_DEVICE}")
    config = RunConfig(tf_random_seed=params.seed)
    made, traced = functions.build(params, shape, num_classes, 1, config)
    if several and traced.running:
        raise ValueError(f"{replicas}: {PER_EXAMPLE.format(', '.join(traced.running))}")
    if start:
        network = made.given_network
        if start.goes_on and network is not None and frozen.is_frozen(network):
            # The checkpoint is of the last phase.
            phase = functions.fine_tuned if params.fine_tune else functions.head
            made = phase(network, params, num_classes, 1, config)
        start.check(made)
    if not functions.own:
        return features.METRICS
    functions.callbacks(params, config, traced)
    if missing := [name for name in _NEEDED if name not in traced.predictions]:
        raise ValueError(
            f"model_fn ({function.__name__}): predictions must have "
            f"{' and '.join(map(repr, missing))}: the Evaluator reads 'classes', int64 [N], and "
            f"'probabilities', float32 [N, C]; there are {sorted(traced.predictions)}"
        )
    return (features.LOSS, *traced.values, *traced.running)


def _code(function: Callable[..., Any]) -> Any:
    return getattr(function, "__code__", None)


def _in_one_line(error: BaseException) -> str:
    """In which mode, what an exception says, where in the user's code it came from, and what to do."""
    here = str(__file__).rpartition("/")[0]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(here) and "/site-packages/" not in frame.filename
    ]
    message = " ".join(str(error).split())
    if not isinstance(error, ValueError | TypeError):
        message = f"{type(error).__name__}: {message}"
    mode = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{mode}{message.rstrip('.')}{where}{hint(message)}"
