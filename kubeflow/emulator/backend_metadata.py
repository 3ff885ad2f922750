"""What Kubeflow's driver and launcher remember of executions and artifacts, and what comes out of it again.

Up to 2.17 that is ML Metadata. Backends after pull request 13986 have tables of their own; what a step sees
of these is another id of an artifact, and its whole schema as its type. Here both are one ML Metadata file.
"""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

Json = Any
CONTAINER, IMPORTER = "system.ContainerExecution", "system.ImporterExecution"
PIPELINE, RUN = "system.Pipeline", "system.PipelineRun"
_OUTPUT = mlmd.Event.OUTPUT
_SCHEMA = "instance_schema"  # with an artifact; a step sees it as the artifact's type or not at all


class MetadataError(Exception):
    """Kubeflow cannot write this into ML Metadata."""


class BackendMetadata:
    """Executions and artifacts of the pipeline's runs; safe to use from several threads.

    Args:
        file: the SQLite file.
        pipeline: the pipeline's name.
        run_id: the run's id.
    """

    def __init__(self, file: Path, pipeline: str, run_id: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        config = mlmd.ConnectionConfig()
        config.sqlite.filename_uri = str(file)
        self._store = MetadataStore(config)
        self._lock = threading.RLock()
        self._pipeline = self._context(PIPELINE, pipeline)
        self._contexts = [self._pipeline, self._context(RUN, run_id)]

    def _context(self, type_name: str, name: str) -> mlmd.Context:
        type_id = self._store.put_context_type(mlmd.ContextType(name=type_name))
        known = self._store.get_context_by_type_and_name(type_name, name)
        if known is not None:
            return known
        (context_id,) = self._store.put_contexts([mlmd.Context(type_id=type_id, name=name)])
        (context,) = self._store.get_contexts_by_id([context_id])
        return context

    def new_artifact(self, name: str, schema: str, artifact: Json, session: str) -> mlmd.Artifact:
        """Write an output artifact.

        Args:
            name: the output's name.
            schema: YAML with the type's title.
            artifact: a RuntimeArtifact.
            session: how the object store was reached.

        Raises:
            MetadataError: for a schema without a title, or metadata that ML Metadata has no value for.
        """
        properties = {key: to_mlmd(value) for key, value in artifact.get("metadata", {}).items()}
        properties.setdefault("display_name", mlmd.Value(string_value=name))
        properties.setdefault("store_session_info", mlmd.Value(string_value=session))
        with self._lock:
            made = mlmd.Artifact(
                type_id=self._artifact_type(schema), uri=artifact["uri"], state=mlmd.Artifact.LIVE
            )
            for key, value in properties.items():
                made.custom_properties[key].CopyFrom(value)
            made.custom_properties[_SCHEMA].string_value = schema
            (made_id,) = self._store.put_artifacts([made])
            return self._store.get_artifacts_by_id([made_id])[0]

    def imported_artifact(self, schema: str, uri: str, metadata: Json, session: str) -> mlmd.Artifact:
        """The artifact of an importer: one that the pipeline knows with all of this equal, or a new one."""
        wanted = {key: to_mlmd(value) for key, value in metadata.items()}
        wanted["store_session_info"] = mlmd.Value(string_value=session)
        with self._lock:
            type_id = self._artifact_type(schema)
            for candidate in self._store.get_artifacts_by_context(self._pipeline.id):
                if (
                    candidate.type_id == type_id
                    and candidate.uri == uri
                    and all(candidate.custom_properties.get(k) == v for k, v in wanted.items())
                ):
                    return candidate
            made = mlmd.Artifact(type_id=type_id, uri=uri, state=mlmd.Artifact.LIVE)
            for key, value in wanted.items():
                made.custom_properties[key].CopyFrom(value)
            made.custom_properties[_SCHEMA].string_value = schema
            (made_id,) = self._store.put_artifacts([made])
            return self._store.get_artifacts_by_id([made_id])[0]

    def publish(
        self,
        task: str,
        kind: str,
        state: int,
        outputs: dict[str, mlmd.Artifact],
        parameters: Json = None,
        fingerprint: str = "",
    ) -> int:
        """Write an execution with its outputs; returns its id."""
        with self._lock:
            type_id = self._store.put_execution_type(mlmd.ExecutionType(name=kind))
            execution = mlmd.Execution(type_id=type_id, last_known_state=state)
            execution.custom_properties["task_name"].string_value = task
            execution.custom_properties["cache_fingerprint"].string_value = fingerprint
            execution.custom_properties["outputs"].string_value = json.dumps(parameters or {})
            pairs = []
            for name, artifact in outputs.items():
                event = mlmd.Event(type=_OUTPUT, artifact_id=artifact.id)
                event.path.steps.add(key=name)
                pairs.append((artifact, event))
            execution_id, _, _ = self._store.put_execution(execution, pairs, self._contexts)
            return execution_id

    def cached(self, fingerprint: str) -> int | None:
        """The newest execution that completed with a fingerprint, in this pipeline."""
        with self._lock:
            ids = [
                execution.id
                for execution in self._store.get_executions_by_context(self._pipeline.id)
                if execution.custom_properties["cache_fingerprint"].string_value == fingerprint
                and execution.last_known_state == mlmd.Execution.COMPLETE
            ]
        return max(ids, default=None)

    def outputs(self, execution_id: int) -> dict[str, mlmd.Artifact]:
        """The output artifacts of an execution by name."""
        with self._lock:
            names = {
                event.artifact_id: event.path.steps[0].key
                for event in self._store.get_events_by_execution_ids([execution_id])
                if event.type == _OUTPUT
            }
            return {names[a.id]: a for a in self._store.get_artifacts_by_id(list(names))}

    def parameters(self, execution_id: int) -> dict[str, Json]:
        """The output parameters of an execution by name."""
        with self._lock:
            (execution,) = self._store.get_executions_by_id([execution_id])
        return json.loads(execution.custom_properties["outputs"].string_value)

    def _artifact_type(self, schema: str) -> int:
        title = (yaml.safe_load(schema) or {}).get("title") if schema else None
        if not title:
            raise MetadataError("No title specified")
        return self._store.put_artifact_type(mlmd.ArtifactType(name=title))


def to_mlmd(value: Json) -> mlmd.Value:
    """One value of a RuntimeArtifact's metadata.

    Raises:
        MetadataError: for null.
    """
    match value:
        case bool():
            return mlmd.Value(int_value=int(value))
        case int() | float():
            return mlmd.Value(double_value=value)
        case str():
            return mlmd.Value(string_value=value)
        case list() | dict():
            kind = "list" if isinstance(value, list) else "struct"
            made = mlmd.Value()
            json_format.ParseDict({kind: value}, made.struct_value)
            return made
    raise MetadataError("unknown/unsupported value type *structpb.Value_NullValue")


def to_runtime_artifact(artifact: mlmd.Artifact, native: bool = False) -> Json:
    """An artifact as the driver hands it to the next task.

    Args:
        artifact: as it was written.
        native: as a backend without ML Metadata does it; with it, the type is not known any more.
    """
    metadata: dict[str, Json] = {}
    for key, value in [*artifact.properties.items(), *artifact.custom_properties.items()]:
        kind = value.WhichOneof("value")
        if kind == "struct_value":
            metadata[key] = json_format.MessageToDict(value.struct_value)
        elif kind == "int_value":
            metadata[key] = float(value.int_value)
        else:
            metadata[key] = getattr(value, kind)
    schema = metadata.pop(_SCHEMA, "")
    return {
        "name": str(uuid.uuid5(uuid.NAMESPACE_URL, str(artifact.id))) if native else str(artifact.id),
        "uri": artifact.uri,
        "type": {"schemaTitle": schema} if native else {"instanceSchema": ""},
        "metadata": metadata,
    }
