"""Whether a cached verdict on a model still speaks of what is in production."""

from __future__ import annotations

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.shared import model_store, names
from pipeline.nodes import NodeId

_MODEL, _PUSHED_MODEL = "Model", "PushedModel"


def outdated(store: MetadataStore, candidate_id: int, base: str) -> bool:
    """Whether the newest version is neither what a candidate was last compared with nor the candidate.

    A version that a rollback made is no reason to judge again: a run with nothing changed does not undo it.

    Args:
        store: ML Metadata.
        candidate_id: the Trainer's model artifact.
        base: the folder of version folders; empty: there is none.
    """
    newest = model_store.newest(base) if base else None
    if newest is None:
        return False
    users = [
        event.execution_id
        for event in store.get_events_by_artifact_ids([candidate_id])
        if event.type == mlmd.Event.INPUT
    ]
    made = _outputs(store, users)
    baselines = [artifact for artifact in made if artifact.type == _MODEL]
    if not baselines:
        return False  # never judged; it will be
    last = max(baselines, key=lambda artifact: artifact.id)
    known = {last.custom_properties[names.VERSION].string_value}
    known |= {_version(artifact) for artifact in made if artifact.type == _PUSHED_MODEL}
    known |= {_version(artifact) for artifact in _rolled_back(store)}
    return newest.folder.name not in known


def _version(pushed: mlmd.Artifact) -> str:
    return str(pushed.custom_properties["pushed_version"].string_value)


def _rolled_back(store: MetadataStore) -> list[mlmd.Artifact]:
    if not any(kind.name == NodeId.ROLLBACK for kind in store.get_execution_types()):
        return []
    return _outputs(store, [one.id for one in store.get_executions_by_type(NodeId.ROLLBACK)])


def _outputs(store: MetadataStore, executions: list[int]) -> list[mlmd.Artifact]:
    if not executions:
        return []
    events = store.get_events_by_execution_ids(executions)
    return list(store.get_artifacts_by_id([e.artifact_id for e in events if e.type == mlmd.Event.OUTPUT]))
