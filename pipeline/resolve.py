"""Completes a config before anything runs or is compiled: recipe, data, code, baseline.

TensorFlow is imported for a function of the user's alone.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.image_example_gen.sources import DataSet, Options, choose
from components.image_example_gen.splitting import splitting
from components.shared import model_store
from pipeline import class_names, enough_data, warm_start
from pipeline.code_hash import code_hashes
from pipeline.config import CODE, ConfigError, DataConfig, PipelineConfig
from pipeline.history.records import History, HistoryError
from pipeline.nodes import NodeId, Output
from pipeline.runtime import environment, gpus, logs
from trainer import base_files, recipes
from trainer.features import DEFAULT_NUM_CLASSES, METRICS, ImageShape
from trainer.networks import NETWORKS
from trainer.recipes import Params
from trainer.workers import TF_CONFIG

_RUN = "run:"  # before the id of a run
_PODS = "kubeflow.nodes.Trainer.workers"

# Of recipes for which the gates that a run has by default are too high; settings come before them.
_GATES: Mapping[str, Mapping[str, float]] = {
    "tutorial": {"accuracy": 0.96},  # MNIST: tf.estimator's 0.9706, less a little
    # CIFAR-10 as JPEG files: 0.921, 0.820 and 0.179, which is of label smoothing.
    "cifar": {"accuracy": 0.9, "class_accuracy": 0.75, "calibration_error": 0.25},
    # CIFAR-10 as JPEG files: 0.829 and 0.687.
    "cifar-tutorial": {"accuracy": 0.8, "class_accuracy": 0.6},
}


def check_recipe(config: PipelineConfig) -> Params:
    """The hyper-parameters; refuses what the Trainer would refuse after minutes, or in the cluster.

    Raises:
        ConfigError: for an unknown recipe or a wrong value.
    """
    try:
        params = recipes.resolve(config.trainer.recipe, **config.trainer.overrides())
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if config.trainer.workers > 1 and not NETWORKS[params.network].trains:
        raise ConfigError(f"the network {params.network!r} is not trained: leave trainer.workers out")
    return params


def _check_workers(config: PipelineConfig) -> None:
    """Refuse workers that would not find each other here, or wait for one device.

    Raises:
        ConfigError: one line.
    """
    setting = f"trainer.workers={config.trainer.workers}"
    if config.trainer.workers > 1 and gpus.present():
        raise ConfigError(
            f"{setting}: workers train on the CPU, and one process trains on all GPUs that are here: leave "
            "them out, or hide the GPUs (CUDA_VISIBLE_DEVICES=-1)"
        )
    if config.trainer.workers > 1 and os.environ.get(TF_CONFIG):
        raise ConfigError(f"{setting}: {TF_CONFIG} says already who trains together: leave one of them out")


def for_this_machine(config: PipelineConfig, folder: Path) -> PipelineConfig:
    """A config of `run` or `tune` with all that is found out before the first node.

    Args:
        config: settings.
        folder: of the data set.

    Raises:
        ConfigError, SourceError: as with_facts; also where `baseline.uri` holds no model, or
            `trainer.warm_start_from` nothing to begin with, or a file of `trainer.base` is missing.
    """
    _check_workers(config)
    config = warm_start.on_this_machine(_with_base(_with_baseline(config)))
    start = config.trainer.warm_start_from
    here = start if start and "://" not in start else None
    return with_facts(config, folder, here).replace("data", uri=str(folder.absolute()))


def for_a_cluster(config: PipelineConfig, folder: Path | None, workers: int = 1) -> PipelineConfig:
    """The same for a pipeline that is compiled; URIs stay as they are.

    Args:
        config: settings.
        folder: a copy of the data set on this machine. None: the one below `root` that has the name of the
            data in the cluster; where there is none either, the settings must say what the images are.
        workers: pods that train together.

    Raises:
        ConfigError, SourceError: as with_facts; also where nothing says what the images are, a file of
            `trainer.base` is not on this machine, or several workers cannot train what is set.
    """
    if config.trainer.workers > 1:
        raise ConfigError(
            f"trainer.workers={config.trainer.workers}: these are processes of one machine, and one uses "
            f"all that a pod has: set {_PODS}, which are pods, instead"
        )
    data = config.data
    if folder is None and not (data.size and data.num_classes):
        fetched = config.root / "data" / data.dataset
        if not fetched.is_dir() or (data.uri and data.uri.rstrip("/").split("/")[-1] != data.dataset):
            raise ConfigError(
                "nothing says how large the images are and how many classes they have: give a copy of the "
                "data with --data-dir, or --set data.size=28x28 --set data.num_classes=10"
            )
        folder = fetched
    for name in ("base", "base_weights"):
        value = getattr(config.trainer, name) or ""
        if value.startswith(_RUN) or "://" in value:
            raise ConfigError(
                f"trainer.{name}={value}: the Trainer's pod opens neither addresses nor this machine's "
                "runs: copy the files into the image, and give the path that they have there and here"
            )
    config = warm_start.in_a_cluster(_with_base(config))
    if workers == 1:
        return with_facts(config, folder)
    try:
        # What holds for processes of one machine holds for pods, but that each pod has GPUs of its own.
        as_processes = with_facts(config.replace("trainer", workers=workers, gpus=0), folder)
    except ConfigError as error:
        raise ConfigError(str(error).replace("trainer.workers", _PODS)) from None
    return as_processes.replace("trainer", workers=1, gpus=config.trainer.gpus)


def _with_baseline(config: PipelineConfig) -> PipelineConfig:
    """Other files at `baseline.uri` are another baseline, never a stale cache hit."""
    if not config.baseline.uri:
        return config
    uri = str(Path(config.baseline.uri).expanduser().absolute())
    folder = model_store.find(uri)
    if folder is None:
        raise ConfigError(f"baseline.uri: there is no SavedModel in {uri}")
    return config.replace("baseline", uri=uri, fingerprint=model_store.fingerprint(folder))


def _with_base(config: PipelineConfig) -> PipelineConfig:
    """What `trainer.base` and `trainer.base_weights` name, where another content is another training."""
    given, weights = (getattr(config.trainer, name) or "" for name in ("base", "base_weights"))
    found: dict[str, str] = {}
    for name, value in (("base", given), ("base_weights", weights)):
        if not value or (name == "base" and not value.endswith(".keras")):
            continue
        file = Path(value).expanduser().absolute()
        if not file.is_file():
            raise ConfigError(f"trainer.{name}={value}: there is no such file")
        found[name] = str(file)
    folder = _model_of_run(config, given) if given.startswith(_RUN) else Path(given).expanduser()
    if given and folder.is_dir():
        saved = model_store.find(str(folder.absolute()))
        if saved is None:
            raise ConfigError(f"trainer.base={given}: there is no SavedModel in {folder}")
        found["base"] = saved
    if not found:
        return config
    contents = base_files.fingerprint(found.get("base", ""), found.get("base_weights", ""))
    return config.replace("trainer", **found, base_fingerprint=contents)


def _model_of_run(config: PipelineConfig, given: str) -> Path:
    try:
        run = History(config).find(given.removeprefix(_RUN) or None)
    except HistoryError as error:
        raise ConfigError(f"trainer.base: {error}") from None
    trainer = run.node(NodeId.TRAINER)
    output = trainer.output(Output.MODEL) if trainer else None
    if output is None:
        raise ConfigError(f"trainer.base: run {run.id} has trained nothing")
    return Path(output.uri)


def with_facts(config: PipelineConfig, folder: Path | None, start: str | None = None) -> PipelineConfig:
    """Put the hashes of the code and what the data are into the config; their URI stays.

    Args:
        config: settings.
        folder: of the data set, which is read once; None where no copy is here.
        start: folder with what the training begins with; None where it is not here.

    Raises:
        SourceError: for a data set with a fault, or too few examples.
        ConfigError: for pictures of several sizes where none is set, for images that the recipe's network
            cannot take, for too few examples of a class, for a model function that cannot train, be
            evaluated or predict, and as check_recipe.
    """
    config = _with_gates(with_names(config))
    if folder is not None:
        data = inspect(config.data, folder)
        if lack := enough_data.find(config, data, str(folder)):
            options = " ".join(f"--set {shlex.quote(setting)}" for setting in lack.settings)
            raise ConfigError(
                f"{folder}: {lack.text}: no model could be pushed; add images, or go without them with "
                f"{options}"
            )
        config = config.replace("data", **facts(config.data, data))
    elif config.data.wanted_size is not None:
        shape = ImageShape(*config.data.wanted_size, _channels(config.data, config.data.shape.channels))
        config = config.replace("data", shape=shape)
    params = check_recipe(config)
    code = code_hashes(config.trainer)  # says first which dotted path leads nowhere
    try:
        if not config.trainer.build_network:
            params.check_image_size(config.data.shape)
            params.check_base()
        metrics = _check_functions(config, params, start)
        for name, setting in config.gates.metric_names.items():
            if name not in metrics:
                raise ValueError(
                    f"{setting}: the model function reports no such metric; there are {', '.join(metrics)}"
                )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return config.model_copy(update={CODE: code})


def _with_gates(config: PipelineConfig) -> PipelineConfig:
    """With the recipe's own gates, where no setting says another."""
    own = _GATES.get(config.trainer.recipe, {})
    unset = {name: value for name, value in own.items() if name not in config.gates.model_fields_set}
    return config.replace("gates", **unset) if unset else config


def _check_functions(config: PipelineConfig, params: Params, start: str | None) -> Sequence[str]:
    """The metrics that an evaluation in the Trainer reports, by name."""
    trainer = config.trainer
    own = (trainer.model_fn, trainer.build_network, trainer.callbacks)
    if not any((*own, start, params.base, params.optimizer_arguments, params.schedule_arguments)):
        return METRICS
    classes = config.data.num_classes or DEFAULT_NUM_CLASSES
    with (
        tempfile.TemporaryDirectory() as folder,
        environment.scratch_environment(Path(folder, "scratch")),
        # TensorFlow tells of devices that are not there.
        logs.redirected(Path(folder, "log")),
    ):
        from trainer import user_functions  # imports TensorFlow and Keras, which takes seconds

        return user_functions.check(trainer.custom_config(), params, config.data.shape, classes, start)


def with_names(config: PipelineConfig) -> PipelineConfig:
    """With the names of `data.names`; those of ImageNet, where Keras has them here, for its networks."""
    data, base = config.data, config.trainer.overrides().get("base", "")
    cached = Path.home() / class_names.IMAGENET
    of_keras = base and not base.endswith(".keras") and not Path(base).exists()
    if config.trainer.recipe == "pretrained" and of_keras and not data.names and cached.is_file():
        data = data.model_copy(update={"names": str(cached)})
    named = class_names.named(data)
    return config if named is config.data else config.replace("data", **named.model_dump())


def inspect(config: DataConfig, folder: Path) -> DataSet:
    """What the data set in a folder is, read as the settings say.

    Raises:
        SourceError: for a fault, or too few examples.
    """
    config = class_names.named(config)
    options = Options(num_classes=config.num_classes, **config.options())
    found = choose(folder.absolute(), config.source, options).inspect()
    splitting(found.examples, str(folder))  # refuses too few examples
    return found


def facts(config: DataConfig, data: DataSet) -> dict[str, Any]:
    """The settings that a data set implies.

    Raises:
        ConfigError: where its pictures have several sizes and none is set.
    """
    if not data.one_size and config.wanted_size is None:
        (least_height, least_width), (height, width) = data.least, data.largest
        raise ConfigError(
            f"pictures of {least_height} x {least_width} to {height} x {width} pixels: set the size that "
            "the network gets, for example --set data.size=64x64"
        )
    shape = ImageShape(*(config.wanted_size or data.largest), _channels(config, data.channels))
    natural = ImageShape(*data.largest, data.channels)
    return {
        "fingerprint": data.fingerprint,
        "shape": shape,
        "encoded": data.encoded or shape != natural,
        "num_classes": data.num_classes,
        # With num_classes a source takes labels as they are, unless it is told otherwise.
        "label_offset": data.label_offset or config.label_offset,
        "class_names": data.class_names,
    }


def _channels(config: DataConfig, found: int) -> int:
    if config.channels != "auto":
        return int(config.channels)
    return 1 if config.kind == "digits" else found
