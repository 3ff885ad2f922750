"""Past runs, read from ML Metadata without TensorFlow or TFX."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ml_metadata import errors, metadata_store
from ml_metadata.proto import metadata_store_pb2

from components.shared import names
from pipeline import product
from pipeline.config import PipelineConfig
from pipeline.errors import UserError
from pipeline.history.connection import connection_config
from pipeline.nodes import NodeId, NodeState, Output

ROLLED_BACK_TO = "version"  # the setting of a run of the node Rollback: see pipeline/history/rollback.py

_Execution = metadata_store_pb2.Execution
_STATES = {
    _Execution.NEW: NodeState.RUNNING,
    _Execution.RUNNING: NodeState.RUNNING,
    _Execution.COMPLETE: NodeState.DONE,
    _Execution.CACHED: NodeState.CACHED,
    _Execution.FAILED: NodeState.FAILED,
    _Execution.CANCELED: NodeState.INTERRUPTED,
}
_OUTPUTS = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.INTERNAL_OUTPUT)


def node_state(execution_state: int) -> NodeState:
    """How a node stands by the state of its execution in ML Metadata."""
    return _STATES.get(execution_state, NodeState.RUNNING)


class HistoryError(UserError):
    """There is no such run: one line for a person."""


@dataclass(frozen=True)
class Artifact:
    """One thing that a node read or wrote.

    Attributes:
        key: the node's name for it.
        id: in ML Metadata.
        type: its type's name.
        uri: where it is.
        properties: its custom properties.
    """

    key: str
    id: int
    type: str
    uri: str
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class Node:
    """What one node did in a run.

    Attributes:
        id: the node's name.
        execution_id: in ML Metadata.
        state: done, cached, failed, running or interrupted.
        began: when.
        seconds: how long, as ML Metadata saw it.
        settings: its execution properties.
        inputs: what it read.
        outputs: what it wrote, or took from the cache.
    """

    id: str
    execution_id: int
    state: NodeState
    began: datetime
    seconds: float
    settings: Mapping[str, Any]
    inputs: tuple[Artifact, ...]
    outputs: tuple[Artifact, ...]

    def output(self, key: str) -> Artifact | None:
        """The artifact under an output key."""
        return next((artifact for artifact in self.outputs if artifact.key == key), None)


@dataclass(frozen=True)
class Run:
    """One run of the pipeline.

    Attributes:
        id: its name, which begins with the time.
        began: when.
        nodes: in the order in which they began.
    """

    id: str
    began: datetime
    nodes: tuple[Node, ...]

    def node(self, name: str) -> Node | None:
        """The node of a name, where it was reached."""
        return next((node for node in self.nodes if node.id == name), None)

    @property
    def seconds(self) -> float:
        """From the first node's begin to the last one's end."""
        end = max((node.began.timestamp() + node.seconds for node in self.nodes), default=0.0)
        return max(0.0, end - self.began.timestamp()) if self.nodes else 0.0

    @property
    def recipe(self) -> str:
        """Which hyper-parameters, and whether some were changed."""
        node = self.node(NodeId.TRAINER) or self.node(NodeId.TUNER)
        custom = _parsed(node.settings.get("custom_config")) if node else None
        if not isinstance(custom, dict):
            return ""
        changes = len(custom.get("overrides", {}))
        return custom.get("recipe", "") + (f" +{changes}" if changes else "")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the data."""
        node = self.node(NodeId.EXAMPLE_GEN)
        return str(node.settings.get("fingerprint", "")) if node else ""

    @property
    def pushed_version(self) -> str:
        """The version that the model became, empty where it was not pushed."""
        node = NodeId.ROLLBACK if self.node(NodeId.ROLLBACK) else NodeId.PUSHER
        pushed = self._property(node, Output.PUSHED_MODEL, "pushed_version")
        return str(pushed or "")

    @property
    def verdict(self) -> str:
        """How the run ended, in a word or two."""
        for state in (NodeState.FAILED, NodeState.INTERRUPTED, NodeState.RUNNING):
            for node in self.nodes:
                if node.state == state:
                    return f"{state} in {node.id}"
        if self.node(NodeId.TUNER):
            return "tuned"
        if rolled_back := self.node(NodeId.ROLLBACK):
            return f"rolled back to {rolled_back.settings.get(ROLLED_BACK_TO)}"
        if self._property(NodeId.EVALUATOR, Output.BLESSING, "blessed") == 0:
            return "refused"
        if self._property(NodeId.SERVING_VALIDATOR, Output.BLESSING, "blessed") == 0:
            return "not servable"
        return "pushed" if self.pushed_version else "unfinished"

    @property
    def report(self) -> Path | None:
        """ReportGen's page, where it was reached and is still there."""
        return self._report_file(names.REPORT_FILE)

    @property
    def metrics(self) -> dict[str, Any]:
        """ReportGen's figures: see components/report_gen/findings.py."""
        file = self._report_file(names.SUMMARY_FILE)
        if file is None:
            return {}
        figures: dict[str, Any] = json.loads(file.read_text())
        return figures

    @property
    def settings(self) -> dict[str, Any]:
        """Every execution property by `<node>.<name>`, those inside JSON texts by longer names."""
        return {f"{node.id}.{name}": value for node in self.nodes for name, value in _flat(node.settings)}

    def _property(self, node: str, key: str, name: str) -> Any:
        found = self.node(node)
        artifact = found.output(key) if found else None
        return artifact.properties.get(name) if artifact else None

    def _report_file(self, name: str) -> Path | None:
        node = self.node(NodeId.REPORT_GEN)
        artifact = node.output(Output.REPORT) if node else None
        path = Path(artifact.uri, name) if artifact else None
        return path if path and path.is_file() else None


def flat_metrics(run: Run) -> dict[str, Any]:
    """The run's figures by dotted names, for a table."""
    return dict(_flat(run.metrics))


class History:
    """Reads the runs of one pipeline, newest first."""

    def __init__(self, config: PipelineConfig) -> None:
        """Open ML Metadata.

        Raises:
            HistoryError: where there is none yet, or it does not answer.
        """
        if not config.metadata.mysql_host and not config.metadata_path.is_file():
            raise HistoryError(
                f"there is no run below {config.root}: {config.metadata_path} does not exist"
            )
        self._pipeline = config.name
        root = [] if config.root == PipelineConfig().root else ["--root", str(config.root)]
        self._listing = shlex.join([product.NAME, "runs", *root])
        try:
            self._store = metadata_store.MetadataStore(connection_config(config))
        except (errors.StatusError, RuntimeError) as error:
            raise HistoryError(f"ML Metadata does not answer: {error}") from None

    def ids(self) -> list[str]:
        """Of all runs in the database, newest first."""
        contexts = self._store.get_contexts_by_type("pipeline_run")
        # Not by time: clocks go back.
        contexts.sort(key=lambda context: context.id, reverse=True)
        return [context.name for context in contexts]

    def runs(self, limit: int | None = None) -> list[Run]:
        """The newest runs of the pipeline.

        Args:
            limit: how many at most; None: all.
        """
        found: list[Run] = []
        for run_id in self.ids():
            if limit is not None and len(found) == limit:
                break
            run = self._read(run_id)
            if run.nodes:
                found.append(run)
        return found

    def find(self, name: str | None) -> Run:
        """The run whose id begins with `name`; None means the newest.

        Raises:
            HistoryError: for none, or more than one.
        """
        if name is None:
            runs = self.runs(1)
            if not runs:
                raise HistoryError(f"pipeline {self._pipeline} was never run")
            return runs[0]
        matching = [run_id for run_id in self.ids() if run_id.startswith(name)]
        exact = [run_id for run_id in matching if run_id == name] or matching
        if len(exact) != 1:
            found = f"{len(exact)} runs begin with" if exact else "there is no run"
            raise HistoryError(f"{found} {name!r}: `{self._listing}` lists them")
        return self._read(exact[0])

    def _read(self, run_id: str) -> Run:
        context = self._store.get_context_by_type_and_name("pipeline_run", run_id)
        executions = sorted(self._store.get_executions_by_context(context.id), key=lambda e: e.id)
        names = {execution.id: self._node_of(execution.id) for execution in executions}
        executions = [execution for execution in executions if names[execution.id]]
        inputs, outputs = self._artifacts([execution.id for execution in executions])
        return Run(
            run_id,
            _time(context.create_time_since_epoch),
            tuple(
                Node(
                    id=names[execution.id],
                    execution_id=execution.id,
                    state=node_state(execution.last_known_state),
                    began=_time(execution.create_time_since_epoch),
                    seconds=max(
                        0,
                        execution.last_update_time_since_epoch - execution.create_time_since_epoch,
                    )
                    / 1000,
                    settings=_values(execution.custom_properties),
                    inputs=tuple(inputs.get(execution.id, ())),
                    outputs=tuple(outputs.get(execution.id, ())),
                )
                for execution in executions
            ),
        )

    def _node_of(self, execution_id: int) -> str:
        """The node's name, empty for one of another pipeline in the same database."""
        prefix = f"{self._pipeline}."
        return next(
            (
                context.name.removeprefix(prefix)
                for context in self._store.get_contexts_by_execution(execution_id)
                if context.type == "node" and context.name.startswith(prefix)
            ),
            "",
        )

    def _artifacts(
        self, execution_ids: list[int]
    ) -> tuple[dict[int, list[Artifact]], dict[int, list[Artifact]]]:
        """What each execution read and wrote."""
        events = self._store.get_events_by_execution_ids(execution_ids) if execution_ids else []
        ids = sorted({event.artifact_id for event in events})
        by_id = {
            artifact.id: artifact for artifact in (self._store.get_artifacts_by_id(ids) if ids else [])
        }
        inputs: dict[int, list[Artifact]] = {}
        outputs: dict[int, list[Artifact]] = {}
        for event in events:
            artifact = by_id[event.artifact_id]
            side = outputs if event.type in _OUTPUTS else inputs
            side.setdefault(event.execution_id, []).append(
                Artifact(
                    event.path.steps[0].key,
                    artifact.id,
                    artifact.type,
                    artifact.uri,
                    _values(artifact.custom_properties),
                )
            )
        return inputs, outputs


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000)


def _values(properties: Mapping[str, metadata_store_pb2.Value]) -> dict[str, Any]:
    return {
        name: getattr(value, kind)
        for name, value in properties.items()
        if (kind := value.WhichOneof("value")) in ("int_value", "double_value", "string_value")
    }


def _parsed(value: Any) -> Any:
    """The value, or what a JSON text of an object or a list holds."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        content = _parsed(value)
        if isinstance(content, list):
            content = {str(number): item for number, item in enumerate(content)}
        if isinstance(content, dict):
            yield from _flat(content, f"{prefix}{name}.")
        else:
            yield prefix + name, content
