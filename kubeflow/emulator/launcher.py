"""What Kubeflow's launcher does in a pod: inputs down, the container's command, outputs up."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from ml_metadata.proto import metadata_store_pb2 as mlmd

from kubeflow.emulator.backend_metadata import BackendMetadata, MetadataError
from kubeflow.emulator.object_store import ObjectStore, StoreError
from kubeflow.entrypoint import FOLDERS, LOGS_OUTPUT, ROOT_VARIABLE
from kubeflow.settings import bucket

Json = Any
SESSION = "store_session_info"  # the property that the backend keeps with an artifact
_OUTPUT_PARAMETERS = "tmp/kfp/outputs"


class StepError(Exception):
    """The step failed; the text is the launcher's message, then the end of the container's log."""


@dataclass
class Launcher:
    """The launcher of one attempt at one task.

    Attributes:
        store: the object store.
        metadata: ML Metadata.
        pipeline_root: URI of the run's folder.
        pod: a folder that stands for the pod's own file system, made here and removed at the end.
        say: takes the launcher's warnings.
        pods: holds the container's process, the leader of its group, while it runs.
    """

    store: ObjectStore
    metadata: BackendMetadata
    pipeline_root: str
    pod: Path
    say: Callable[[str], None] = field(default=print)
    pods: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def execute(self, executor_input: Json, component: Json, container: Json) -> Published:
        """Run the container's command.

        Raises:
            StepError: where the step fails, in the launcher or in the container.
        """
        try:
            return self._execute(executor_input, component, container)
        except (StoreError, MetadataError) as error:
            raise StepError(f"failed to execute component: {error}") from error
        finally:
            shutil.rmtree(self.pod, ignore_errors=True)

    def _execute(self, executor_input: Json, component: Json, container: Json) -> Published:
        command = [
            substituted(part, executor_input)
            for part in (*container["command"], *container.get("args", []))
        ]
        self._download(executor_input)
        for artifact in _artifacts(executor_input["outputs"]):
            local = self.local(artifact["uri"])
            if local is None:
                raise StepError(f"failed to generate local storage path for URI {artifact['uri']}")
            local.parent.mkdir(parents=True, exist_ok=True)
        for parameter in executor_input["outputs"].get("parameters", {}).values():
            Path(parameter["outputFile"]).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._run(command, executor_input, container)
            output = self._output(Path(executor_input["outputs"]["outputFile"]))
        except StepError:
            self._upload_logs(executor_input)
            raise
        parameters = self._output_parameters(executor_input, component, output)
        return Published(self._upload(executor_input, output), parameters)

    def local(self, uri: str) -> Path | None:
        """Where the launcher keeps what belongs to a URI, None for one it does not know."""
        for scheme, folder in FOLDERS.items():
            if uri.startswith(scheme):
                return self.pod / folder / uri.removeprefix(scheme)
        return None

    def _download(self, executor_input: Json) -> None:
        for name, artifacts in executor_input["inputs"].get("artifacts", {}).items():
            for artifact in artifacts["artifacts"]:
                try:
                    self.store.path(artifact["uri"])
                except StoreError as error:
                    raise StoreError(
                        f"failed to fetch non default buckets: failed to parse bucketConfig for output "
                        f"artifact {name!r} with uri {artifact['uri']!r}: {error}"
                    ) from error
                if is_unreachable(artifact["metadata"].get(SESSION)):
                    raise StoreError(
                        f"failed to fetch non default buckets: failed to open bucket {artifact['uri']!r}: "
                        'no driver registered for "minio"'
                    )
                local = self.local(artifact["uri"])
                assert local is not None
                self.store.get(artifact["uri"], local)

    def _run(self, command: list[str], executor_input: Json, container: Json) -> None:
        (self.pod / "tmp").mkdir(parents=True, exist_ok=True)
        log = self._log_file(executor_input)
        environment = os.environ | {
            # In the image, `python` is the one that the project is installed in.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(self.pod),
            "TMPDIR": str(self.pod / "tmp"),
            ROOT_VARIABLE: str(self.pod),
        }
        environment |= {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=self.pod,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                umask=0,  # as Argo's runtime leaves it
                start_new_session=True,  # a pod's processes are a group, which Kubernetes ends as one
            )
            self.pods.add(process)
            try:
                process.wait()
            finally:
                self.pods.discard(process)
        if process.returncode:
            end = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise StepError(
                "\n".join([f"failed to execute component: exit status {process.returncode}", *end])
            )

    def _log_file(self, executor_input: Json) -> Path:
        logs = executor_input["outputs"]["artifacts"].get(LOGS_OUTPUT)
        local = self.local(logs["artifacts"][0]["uri"]) if logs else None
        return local or self.pod / "log"

    def _output(self, file: Path) -> Json:
        if not file.exists():
            return {}
        message = pipeline_spec_pb2.ExecutorOutput()
        try:
            json_format.Parse(file.read_text(), message)
        except json_format.ParseError as error:
            raise StepError(
                f"failed to unmarshall ExecutorOutput in file {str(file)!r}: {error}"
            ) from error
        # Read as it is: the message would hide a null.
        return json.loads(file.read_text())

    def _output_parameters(self, executor_input: Json, component: Json, output: Json) -> Json:
        values = dict(output.get("parameterValues", {}))
        declared = component.get("outputDefinitions", {}).get("parameters", {})
        for name, parameter in executor_input["outputs"].get("parameters", {}).items():
            if name in values:
                continue
            try:
                text = Path(parameter["outputFile"]).read_text()
            except OSError as error:
                raise StepError(f"failed to read output parameter name={name!r}: {error}") from error
            kind = declared[name].get("parameterType", "STRING")
            values[name] = text if kind == "STRING" else json.loads(text)
        return values

    def _upload_logs(self, executor_input: Json) -> None:
        logs = executor_input["outputs"]["artifacts"].get(LOGS_OUTPUT)
        if logs:
            uri = logs["artifacts"][0]["uri"]
            local = self.local(uri)
            if local is not None and local.exists():
                self.store.put(local, uri)

    def _upload(self, executor_input: Json, output: Json) -> dict[str, mlmd.Artifact]:
        published = {}
        session = session_info(self.pipeline_root, self.pipeline_root)
        for name, artifacts in sorted(executor_input["outputs"]["artifacts"].items()):
            for artifact in artifacts["artifacts"]:
                reported = output.get("artifacts", {}).get(name, {}).get("artifacts")
                if reported and name != LOGS_OUTPUT:
                    artifact["uri"] = reported[0].get("uri") or artifact["uri"]
                    artifact.setdefault("metadata", {}).update(reported[0].get("metadata") or {})
                self._upload_one(name, artifact)
                schema = (
                    artifact["type"].get("instanceSchema") or f"title: {artifact['type']['schemaTitle']}"
                )
                try:
                    published[name] = self.metadata.new_artifact(name, schema, artifact, session)
                except MetadataError as error:
                    raise MetadataError(
                        f"unable to produce MLMD artifact for output {name!r}: {error}"
                    ) from error
        return published

    def _upload_one(self, name: str, artifact: Json) -> None:
        local = self.local(artifact["uri"])
        if local is None:
            self.say(
                f"Output Artifact {name!r} does not have a recognized storage URI {artifact['uri']!r}. "
                "Skipping uploading to remote storage."
            )
            return
        if not artifact["uri"].startswith(self.pipeline_root):
            raise StoreError(
                f"failed to upload output artifact {name!r}: URI {artifact['uri']!r} does not have "
                f"expected bucket prefix {self.pipeline_root!r}"
            )
        if local.exists():
            self.store.put(local, artifact["uri"])
        else:
            self.say(f"Local filepath {str(local)!r} does not exist")


@dataclass(frozen=True)
class Published:
    """What a step handed on."""

    artifacts: dict[str, mlmd.Artifact]
    parameters: dict[str, Json]


def session_info(uri: str, pipeline_root: str) -> str:
    """What the backend notes about how to reach an object: an endpoint, for the root's bucket alone."""
    provider = uri.partition("://")[0]
    if provider == "minio" and bucket(uri) == bucket(pipeline_root):
        return json.dumps({"Provider": provider, "Params": {"endpoint": "emulator", "fromEnv": "false"}})
    return json.dumps({"Provider": provider, "Params": {"fromEnv": "true"}})


def is_unreachable(session: str | None) -> bool:
    """Whether the launcher has no endpoint for a `minio://` object; pods have none of their own."""
    info = json.loads(session or "{}")
    return info.get("Provider") == "minio" and "endpoint" not in info.get("Params", {})


def substituted(argument: str, executor_input: Json) -> str:
    """A part of the command with the launcher's placeholders filled in."""
    text = argument.replace("{{$}}", json.dumps(executor_input))
    for side in ("inputs", "outputs"):
        for name, artifacts in executor_input[side].get("artifacts", {}).items():
            text = text.replace(
                f"{{{{$.{side}.artifacts['{name}'].uri}}}}", artifacts["artifacts"][0]["uri"]
            )
    for name, value in executor_input["inputs"].get("parameterValues", {}).items():
        shown = value if isinstance(value, str) else json.dumps(value)
        text = text.replace(f"{{{{$.inputs.parameters['{name}']}}}}", shown)
    return text


def output_parameter_file(pod: Path, name: str) -> str:
    """Where the container is told to write an output parameter."""
    return str(pod / _OUTPUT_PARAMETERS / name)


def _artifacts(side: Json) -> list[Json]:
    return [a for artifacts in side.get("artifacts", {}).values() for a in artifacts["artifacts"]]
