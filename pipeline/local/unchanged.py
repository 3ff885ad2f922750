"""A run with nothing changed since the last one, told and recorded without TensorFlow and TFX.

TFX's cache asks node by node, after an import that takes longer than all the asking. What its keys are made
of is known before: the settings (with facts of the data and hashes of the code), the code that wires the
nodes, and TFX itself. Where all that is as it was in the newest run, and nothing that the run made is gone,
TFX would take each node from its cache; so the run is recorded as TFX would record it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Protocol

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline import code_hash, product
from pipeline.config import PipelineConfig
from pipeline.history import report_page
from pipeline.history.connection import connection_config
from pipeline.history.records import History
from pipeline.local import lock, outcome, production, recovery
from pipeline.local.outcome import Outcome
from pipeline.nodes import NodeId, NodeState, Output
from pipeline.previous_data import with_previous_data

_KEY = "unchanged"  # custom property of a run's context: what the cache keys of all its nodes are made of
_RUN = "pipeline_run"  # TFX's type of such a context
_OUTPUTS = (mlmd.Event.OUTPUT, mlmd.Event.INTERNAL_OUTPUT)
_FINISHED = (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED)


class Observer(Protocol):
    """Is told which nodes there are and how they ended: see pipeline.local.runner.Observer."""

    def planned(self, nodes: list[str]) -> None: ...

    def finished(self, node: str, state: NodeState, seconds: float) -> None: ...


def remember(config: PipelineConfig, run_id: str) -> None:
    """Note what a run was made of, after its last node.

    Args:
        config: as the pipeline was created of it.
        run_id: the run's name.
    """
    _remember(MetadataStore(connection_config(config)), run_id, _key(config))


def _remember(store: MetadataStore, run_id: str, key: str) -> None:
    context = store.get_context_by_type_and_name(_RUN, run_id)
    context.custom_properties[_KEY].string_value = key
    store.put_contexts([context])


def run(config: PipelineConfig, observer: Observer, run_id: str) -> Outcome | None:
    """Record a run with nothing changed and tell what it comes to; None where something may have changed.

    Args:
        config: all settings, completed.
        observer: is told about each node.
        run_id: recorded in ML Metadata.
    """
    config = with_previous_data(config)
    try:
        with lock.exclusive(config.pipeline_root):
            if not record(config, run_id):
                return None
        ended = History(config).find(run_id)
        observer.planned([node.id for node in ended.nodes])
        for node in ended.nodes:
            observer.finished(node.id, node.state, node.seconds)
        return replace(outcome.of_run(ended), report=report_page.write(config, ended))
    except lock.BusyError as error:
        return Outcome(error=str(error))
    except Exception as error:
        logging.exception("the run failed outside of its nodes")
        return Outcome(error=outcome.unexpected(error))


def record(config: PipelineConfig, run_id: str) -> bool:
    """Record a run whose every result is there already, if that is so. Call it under `lock.exclusive`.

    Args:
        config: as a pipeline would be created of it.
        run_id: the new run's name.

    Returns:
        Whether it was recorded. If not, nothing was written, and TFX has to ask node by node.
    """
    if not config.cache or (not config.metadata.mysql_host and not config.metadata_path.is_file()):
        return False
    store = MetadataStore(connection_config(config))
    last, key = _last_run(store), _key(config)
    if last is None or last.custom_properties[_KEY].string_value != key:
        return False
    nodes = _nodes(store, last)
    if any(node.execution.last_known_state not in _FINISHED for node in nodes.values()):
        return False
    made = [artifact for node in nodes.values() for artifact in node.outputs(store)]
    if any(recovery.is_lost(artifact, config.pipeline_root) for artifact in made):
        return False
    base = str(config.serving_dir) if config.push.to == "folder" and not config.baseline.uri else ""
    if production.outdated(store, nodes[NodeId.TRAINER].output_id(Output.MODEL), base):
        return False
    run = mlmd.Context(type_id=last.type_id, type=last.type, name=run_id)
    for node in nodes.values():
        _record(store, node, run)
    _remember(store, run_id, key)  # last: one that was killed before this is no whole run
    return True


@dataclass(frozen=True)
class _Node:
    """What a run holds of one node."""

    execution: mlmd.Execution
    contexts: list[mlmd.Context]  # without that of the run
    events: list[mlmd.Event]

    def output_id(self, key: str) -> int:
        """The id of the only artifact under an output key."""
        (found,) = (e.artifact_id for e in self.events if e.type in _OUTPUTS and e.path.steps[0].key == key)
        return int(found)

    def outputs(self, store: MetadataStore) -> list[mlmd.Artifact]:
        """All that it wrote, or took from the cache."""
        return list(store.get_artifacts_by_id([e.artifact_id for e in self.events if e.type in _OUTPUTS]))


def _last_run(store: MetadataStore) -> mlmd.Context | None:
    """The newest run in this database: a rollback, a search, and any other pipeline's too."""
    if not any(kind.name == _RUN for kind in store.get_context_types()):
        return None
    # Not by time: clocks go back.
    return max(store.get_contexts_by_type(_RUN), key=lambda context: int(context.id), default=None)


def _nodes(store: MetadataStore, run: mlmd.Context) -> dict[str, _Node]:
    """The nodes of a run by id, in the order in which they began."""
    nodes = {}
    for execution in sorted(
        store.get_executions_by_context(run.id), key=lambda execution: int(execution.id)
    ):
        contexts = [one for one in store.get_contexts_by_execution(execution.id) if one.id != run.id]
        (name,) = (one.name for one in contexts if one.type == "node")
        events = store.get_events_by_execution_ids([execution.id])
        nodes[name.rpartition(".")[2]] = _Node(execution, contexts, events)
    return nodes


def _record(store: MetadataStore, node: _Node, run: mlmd.Context) -> None:
    """Record a node as TFX does one from the cache; the run gets its id with the first one."""
    execution = mlmd.Execution(
        type_id=node.execution.type_id,
        name=str(uuid.uuid4()),
        properties=node.execution.properties,
        custom_properties=node.execution.custom_properties,
        last_known_state=mlmd.Execution.CACHED,
    )
    artifacts = {one.id: one for one in store.get_artifacts_by_id([e.artifact_id for e in node.events])}
    pairs = [
        (artifacts[event.artifact_id], mlmd.Event(type=event.type, path=event.path))
        for event in node.events
    ]
    _, _, ids = store.put_execution(
        execution, pairs, [*node.contexts, run], reuse_context_if_already_exist=True
    )
    run.id = ids[-1]


def _key(config: PipelineConfig) -> str:
    """SHA-256 of what decides every node's cache key: settings, facts and code, the house, and TFX."""
    made_of = [config.model_dump_json(), code_hash.house_hash(), product.VERSION, version("tfx")]
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
