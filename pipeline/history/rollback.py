"""Makes an earlier pushed version the newest again, which is the one that TensorFlow Serving serves."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

from pipeline.config import PipelineConfig
from pipeline.errors import UserError
from pipeline.history.connection import connection_config
from pipeline.history.records import ROLLBACK, ROLLED_BACK_TO
from pipeline.history.run_id import new_run_id
from pipeline.local.lock import exclusive

# Servers look at numeric names alone, so what is half copied below this name is never loaded.
STAGING = ".rolling-back"
_MODEL_FILE = "saved_model.pb"  # a folder without it is no version

_Event = metadata_store_pb2.Event
_Execution = metadata_store_pb2.Execution


class RollbackError(UserError):
    """There is nothing to go back to: one line for a person."""


@dataclass(frozen=True)
class RolledBack:
    """Version `version` is what `copy_of` was; `newest_before` is what it took the place of."""

    folder: Path
    version: int
    copy_of: int
    newest_before: int
    run_id: str


def versions(serving_dir: Path) -> list[int]:
    """The versions that a server sees in a folder, in ascending order."""
    return sorted(
        int(path.name)
        for path in (serving_dir.iterdir() if serving_dir.is_dir() else ())
        if path.name.isdecimal() and (path / _MODEL_FILE).is_file()
    )


def roll_back(config: PipelineConfig, version: int | None = None) -> RolledBack:
    """Push an earlier version once more, as the newest one, and record it in ML Metadata.

    Args:
        config: where the versions and ML Metadata are.
        version: which one; None means the one before the newest.

    Raises:
        RollbackError: no such version.
        pipeline.lock.BusyError: a run of the pipeline is in progress, and may push.
    """
    folder = config.serving_dir
    with exclusive(config.pipeline_root):
        known = versions(folder)
        chosen = _chosen(folder, known, version)
        new = max(known[-1] + 1, int(time.time()))
        record = _Record(config, folder / str(chosen))
        try:
            _copy(folder / str(chosen), folder / str(new))
        except BaseException:
            record.end(_Execution.FAILED)
            raise
        record.end(_Execution.COMPLETE, folder / str(new))
    return RolledBack(folder / str(new), new, chosen, known[-1], record.run_id)


def _chosen(folder: Path, known: list[int], version: int | None) -> int:
    if not known:
        raise RollbackError(f"{folder}: no model was pushed there yet")
    if version is None:
        if len(known) == 1:
            raise RollbackError(
                f"{folder}: version {known[0]} is the only one; there is none to go back to"
            )
        return known[-2]
    if version not in known:
        raise RollbackError(
            f"{folder}: there is no version {version}; there are {', '.join(map(str, known))}"
        )
    if version == known[-1]:
        raise RollbackError(f"{folder}: version {version} is the newest already")
    return version


def _copy(source: Path, target: Path) -> None:
    """Copy a version folder so that it is there whole or not at all, also when the power fails."""
    staging = target.parent / STAGING
    shutil.rmtree(staging, ignore_errors=True)  # of a rollback that was killed
    try:
        shutil.copytree(source, staging)
        for path in (*staging.rglob("*"), staging):
            _to_disk(path)
        staging.rename(target)
        _to_disk(target.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Record:
    """The rollback in ML Metadata: a run of one node, whose input and output are pushed models."""

    def __init__(self, config: PipelineConfig, source: Path) -> None:
        """Write down that it begins; a process that dies now leaves it unfinished, as a run's node."""
        self._store = metadata_store.MetadataStore(connection_config(config))
        self.run_id = new_run_id()
        self._type_id = self._store.put_artifact_type(
            metadata_store_pb2.ArtifactType(name="PushedModel"), can_omit_fields=True
        )
        self._contexts = [
            self._context(kind, name)
            for kind, name in (
                ("pipeline", config.name),
                ("pipeline_run", self.run_id),
                ("node", f"{config.name}.{ROLLBACK}"),
            )
        ]
        self._execution = metadata_store_pb2.Execution(
            type_id=self._store.put_execution_type(
                metadata_store_pb2.ExecutionType(name=ROLLBACK), can_omit_fields=True
            ),
            last_known_state=_Execution.RUNNING,
        )
        self._execution.custom_properties[ROLLED_BACK_TO].string_value = source.name
        self._execution.id, _, _ = self._store.put_execution(
            self._execution, [(self._pushed_model(source), _event(_Event.INPUT))], self._contexts
        )

    def end(self, state: int, target: Path | None = None) -> None:
        """Write down what came of it, and what was pushed where something was."""
        self._execution.last_known_state = state
        outputs = [(self._pushed_model(target), _event(_Event.OUTPUT))] if target else []
        self._store.put_execution(self._execution, outputs, self._contexts)

    def _context(self, kind: str, name: str) -> metadata_store_pb2.Context:
        found = self._store.get_context_by_type_and_name(kind, name)
        if found is not None:
            return found
        type_id = self._store.put_context_type(
            metadata_store_pb2.ContextType(name=kind), can_omit_fields=True
        )
        (context_id,) = self._store.put_contexts([metadata_store_pb2.Context(type_id=type_id, name=name)])
        (context,) = self._store.get_contexts_by_id([context_id])
        return context

    def _pushed_model(self, folder: Path) -> metadata_store_pb2.Artifact:
        """The artifact of a version folder: what wrote it into ML Metadata, or a new one."""
        for artifact in self._store.get_artifacts_by_type("PushedModel"):
            if artifact.custom_properties["pushed_destination"].string_value == str(folder):
                return artifact
        artifact = metadata_store_pb2.Artifact(
            type_id=self._type_id, uri=str(folder), state=metadata_store_pb2.Artifact.LIVE
        )
        artifact.custom_properties["pushed"].int_value = 1
        artifact.custom_properties["pushed_destination"].string_value = str(folder)
        artifact.custom_properties["pushed_version"].string_value = folder.name
        return artifact


def _event(kind: int) -> metadata_store_pb2.Event:
    event = metadata_store_pb2.Event(type=kind)
    event.path.steps.add().key = "pushed_model"
    return event
