"""`trainer.warm_start_from`: a run, a checkpoint or a SavedModel, to a folder and what is in it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from components.shared import model_store
from pipeline.config import ConfigError, PipelineConfig
from pipeline.history.records import History, HistoryError
from pipeline.nodes import NodeId, Output
from trainer.features import KEPT_FOLDER

_RUN = re.compile(r"run:(?P<id>[^@]*)(@(?P<step>\d+))?")
_SETTING = "trainer.warm_start_from"
_CHECKPOINT = "checkpoint-{}.npz"  # of trainer.checkpoints
# A checkpoint of TensorFlow's is files whose names begin alike; saving with `ckpt` is what everyone does.
_PREFIX = re.compile(r".*ckpt[^/]*")


def on_this_machine(config: PipelineConfig) -> PipelineConfig:
    """The config with the folder and the fingerprint of what the training begins with.

    Raises:
        ConfigError: one line, where there is no such run, checkpoint or SavedModel.
    """
    given = config.trainer.warm_start_from
    if not given:
        return config
    if run := _RUN.fullmatch(given):
        folder, checkpoint = _of_run(config, run["id"], run["step"])
    elif "://" in given:
        return in_a_cluster(config)
    else:
        folder, checkpoint = _split(str(Path(given).expanduser().absolute()))
    files = sorted(path for path in Path(folder).glob("*") if path.name.startswith(checkpoint))
    if not files:
        raise ConfigError(
            f"{_SETTING}={given}: there is no such folder or checkpoint; a run is given as run:ID"
        )
    fingerprint = _fingerprint(files) if checkpoint else model_store.fingerprint(folder)
    return _replaced(config, folder, checkpoint, fingerprint)


def in_a_cluster(config: PipelineConfig) -> PipelineConfig:
    """The same for a pipeline that is compiled: the address stays as it is, and is looked at there.

    Raises:
        ConfigError: for a run, which only this machine knows.
    """
    given = config.trainer.warm_start_from
    if not given:
        return config
    if _RUN.fullmatch(given):
        raise ConfigError(
            f"{_SETTING}={given}: this machine's runs are not known in the cluster: give the address of "
            "the run's model_run artifact, or of its model"
        )
    return _replaced(config, *_split(given.rstrip("/")), config.trainer.warm_start_fingerprint)


def _of_run(config: PipelineConfig, run_id: str, step: str | None) -> tuple[str, str]:
    try:
        run = History(config).find(run_id or None)
    except HistoryError as error:
        raise ConfigError(f"{_SETTING}: {error}") from None
    trainer = run.node(NodeId.TRAINER)
    output = trainer.output(Output.MODEL_RUN) if trainer else None
    if output is None:
        raise ConfigError(f"{_SETTING}: run {run.id} has trained nothing")
    kept = sorted(Path(output.uri, KEPT_FOLDER).glob(_CHECKPOINT.format("*")))
    steps = sorted(int(path.stem.rpartition("-")[2]) for path in kept)
    if not steps:
        raise ConfigError(f"{_SETTING}: run {run.id} ({run.verdict}) has left no checkpoint")
    if step is not None and int(step) not in steps:
        there = ", ".join(map(str, steps))
        raise ConfigError(
            f"{_SETTING}: run {run.id} has no checkpoint of step {step}; there are {there}: "
            "trainer.run_config.keep_checkpoint_max says how many are kept"
        )
    if step is None:
        return output.uri, ""
    return str(Path(output.uri, KEPT_FOLDER)), _CHECKPOINT.format(step)


def _split(address: str) -> tuple[str, str]:
    """The folder, and the name of a checkpoint where the address is not that of a folder."""
    parent, _, name = address.rpartition("/")
    if name.endswith(".npz") or (_PREFIX.fullmatch(name) and not Path(address).is_dir()):
        return parent, name.removesuffix(".index")
    return address, ""


def _fingerprint(files: list[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        total.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _replaced(config: PipelineConfig, folder: str, checkpoint: str, fingerprint: str) -> PipelineConfig:
    return config.replace(
        "trainer",
        warm_start_from=folder,
        warm_start_checkpoint=checkpoint,
        warm_start_fingerprint=fingerprint,
    )
