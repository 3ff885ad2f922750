"""Makes an earlier pushed version the newest again, which is the one that TensorFlow Serving serves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

from components.shared import model_store
from components.shared.model_store import Version
from pipeline.config import PipelineConfig
from pipeline.errors import UserError
from pipeline.history.connection import connection_config
from pipeline.history.records import ROLLED_BACK_TO
from pipeline.history.run_id import new_run_id
from pipeline.local.lock import exclusive
from pipeline.nodes import NodeId, Output

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


def roll_back(config: PipelineConfig, version: int | None = None) -> RolledBack:
    """Push an earlier version once more, as the newest one, and record it in ML Metadata.

    Args:
        config: where the versions and ML Metadata are.
        version: which one; None means the one before the newest.

    Raises:
        RollbackError: no such version.
        pipeline.local.lock.BusyError: a run of the pipeline is in progress, and may push.
    """
    base = config.serving_dir
    _chosen(base, model_store.versions(base), version)  # before the lock, which makes folders
    with exclusive(config.pipeline_root):
        known = model_store.versions(base)
        chosen = _chosen(base, known, version)
        record = _Record(config, chosen.folder)
        try:
            new = model_store.write(chosen.folder, base)
        except BaseException:
            record.end(_Execution.FAILED)
            raise
        record.end(_Execution.COMPLETE, new.folder)
    return RolledBack(new.folder, new.number, chosen.number, known[-1].number, record.run_id)


def _chosen(base: Path, known: list[Version], version: int | None) -> Version:
    if not known:
        raise RollbackError(f"{base}: no model was pushed there yet")
    if version is None:
        if len(known) == 1:
            raise RollbackError(
                f"{base}: version {known[0].number} is the only one; there is none to go back to"
            )
        return known[-2]
    if version == known[-1].number:
        raise RollbackError(f"{base}: version {version} is the newest already")
    for each in known:
        if each.number == version:
            return each
    present = ", ".join(str(each.number) for each in known)
    raise RollbackError(f"{base}: there is no version {version}; there are {present}")


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
                ("node", f"{config.name}.{NodeId.ROLLBACK}"),
            )
        ]
        self._execution = metadata_store_pb2.Execution(
            type_id=self._store.put_execution_type(
                metadata_store_pb2.ExecutionType(name=NodeId.ROLLBACK), can_omit_fields=True
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
    event.path.steps.add().key = Output.PUSHED_MODEL
    return event
