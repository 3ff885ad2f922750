"""Runs a compiled file on this machine as an open-source Kubeflow Pipelines backend (2.16) would.

The backend's driver resolves a task's inputs, looks into the cache and names its outputs; its launcher
(`launcher`) moves files and runs the container's command; Argo orders the tasks and retries them. Here
each command is a process on this machine, a folder is the object store, and ML Metadata is a file.

What differs: images are not pulled and nothing is isolated, resources and secrets are ignored, a retry does
not wait, and a volume is a folder below the store, put in place of its mount path in a task's parameters.
"""

from __future__ import annotations

import concurrent.futures
import copy
import hashlib
import json
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ml_metadata.proto import metadata_store_pb2 as mlmd

from kubeflow import lint
from kubeflow.emulator.backend_metadata import CONTAINER, IMPORTER, BackendMetadata, to_runtime_artifact
from kubeflow.emulator.launcher import Launcher, StepError, output_parameter_file, session_info
from kubeflow.emulator.object_store import ObjectStore
from kubeflow.entrypoint import FOLDERS, LOGS_OUTPUT, WORKERS_FLAG
from kubeflow.spec import File, SpecError
from pipeline.errors import UserError
from pipeline.nodes import NodeState

Json = Any

DONE, CACHED, FAILED, SKIPPED = NodeState.DONE, NodeState.CACHED, NodeState.FAILED, NodeState.SKIPPED
SUCCEEDED = (DONE, CACHED)
LOG_TYPE = "system.Artifact"
DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"  # of the server, in its config map kfp-launcher
OUTPUT_FILE = "output_metadata.json"

_KINDS: dict[str, type | tuple[type, ...]] = {
    "STRING": str,
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


class Observer(Protocol):
    """Is told what happens; called from the threads of the tasks."""

    def planned(self, nodes: list[str]) -> None:
        """The tasks, in an order that they can run in."""

    def started(self, node: str) -> None:
        """A task begins."""

    def finished(self, node: str, state: NodeState, seconds: float) -> None:
        """A task ended as done, cached, failed or skipped."""


@dataclass(frozen=True)
class TaskRun:
    """What became of one task."""

    state: NodeState
    seconds: float = 0.0
    attempts: int = 0
    message: str = ""
    execution_id: int | None = None


@dataclass(frozen=True)
class Run:
    """What became of a run.

    Attributes:
        run_id: its id.
        tasks: what became of each, by name.
        logs: folder of its artifacts, logs included, in a folder by task.
    """

    run_id: str
    tasks: dict[str, TaskRun]
    logs: Path

    @property
    def succeeded(self) -> bool:
        """Whether no task failed."""
        return all(task.state != FAILED for task in self.tasks.values())


@dataclass(frozen=True)
class Options:
    """How to run.

    Attributes:
        store: folder of the object store, ML Metadata and the volumes.
        pipeline_root: URI of the artifacts, as a client sends it; empty: the server's own. The one in the
            file counts for nothing.
        cache: look into the cache where the file allows it.
        publish_logs: keep each step's log as an artifact, as the backend does by default.
        workers: tasks at a time.
        native_metadata: hand artifacts on as a backend without ML Metadata does.
    """

    store: Path
    pipeline_root: str = ""
    cache: bool = True
    publish_logs: bool = True
    workers: int = 2
    native_metadata: bool = False

    def with_root(self, pipeline_root: str) -> Options:
        """The same with another pipeline root."""
        return replace(self, pipeline_root=pipeline_root)

    def objects(self) -> ObjectStore:
        """The object store."""
        return ObjectStore(self.store / "objects")


def parameter_values(file: File, given: Mapping[str, Json]) -> dict[str, Json]:
    """The parameters of a run: what is given, as the API server takes it, and the defaults.

    Raises:
        SpecError: for an unknown parameter, a value of the wrong type, or one that is missing.
    """
    for name, value in given.items():
        kind = file.declared(name)["parameterType"]
        if not isinstance(value, _KINDS[kind]) or (kind.startswith("NUMBER") and isinstance(value, bool)):
            raise SpecError(f"parameter {name}: {value!r} is no {kind}")
    return file.with_defaults(given)


def run(file: File, parameters: Mapping[str, Json], options: Options, observer: Observer) -> Run:
    """Run every task of a compiled pipeline; a task runs when all that it depends on succeeded.

    Args:
        file: the compiled pipeline.
        parameters: a value for each parameter, see `parameter_values`.
        options: where and how.
        observer: is told about each task.

    Raises:
        UserError: for what the backend's compiler refuses.
    """
    emulator = _Emulator(file, parameters, options, observer)
    return emulator.run()


class _Emulator:
    """One run."""

    def __init__(
        self, file: File, parameters: Mapping[str, Json], options: Options, observer: Observer
    ) -> None:
        self._file = file
        self._parameters = parameters
        self._options = options
        self._observer = observer
        self._run_id = str(uuid.uuid4())
        self._objects = options.objects()
        root = options.pipeline_root or DEFAULT_ROOT
        if not any(root.startswith(scheme) for scheme in FOLDERS):
            raise UserError(
                f"the pipeline root {root!r} is in no object store; name one, like {DEFAULT_ROOT}"
            )
        self._root = f"{root.rstrip('/')}/{file.name}/{self._run_id}"
        self._metadata = BackendMetadata(options.store / "metadata.db", file.name, self._run_id)
        self._done: dict[str, TaskRun] = {}
        self._lock = threading.Lock()
        self._pods: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def run(self) -> Run:
        for finding in lint.executor_kinds(self._file):
            raise UserError(f"failed to compile job: {finding}")
        for task, body in self._file.tasks.items():
            if WORKERS_FLAG in self._file.executor(task).get("container", {}).get("args", ()):
                raise UserError(
                    f"{task} runs as several pods, which this emulator does not start: compile without "
                    f"kubeflow.nodes.{task}.workers"
                )
            if "condition" in body.get("triggerPolicy", {}):
                raise UserError(
                    f"{task} runs on a condition, which this emulator does not evaluate; a cluster does"
                )
        try:
            order = self._file.order()
        except SpecError as error:
            raise UserError(f"failed to compile job: {error}") from None
        waiting = {task: set(self._file.tasks[task].get("dependentTasks", ())) for task in order}
        self._observer.planned(order)
        running: dict[concurrent.futures.Future[TaskRun], str] = {}
        with concurrent.futures.ThreadPoolExecutor(self._options.workers) as pool, self._no_pod_left():
            while waiting or running:
                for task in [t for t, needs in waiting.items() if all(n in self._done for n in needs)]:
                    if all(self._done[need].state in SUCCEEDED for need in waiting.pop(task)):
                        running[pool.submit(self._task, task)] = task
                    else:
                        self._finish(task, TaskRun(SKIPPED))
                if not running:
                    continue
                ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in ended:
                    self._finish(running.pop(future), future.result())
        return Run(self._run_id, self._done, self._objects.path(self._root))

    @contextmanager
    def _no_pod_left(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._ended = True
            for process in list(self._pods):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            raise

    def _finish(self, task: str, result: TaskRun) -> None:
        self._done[task] = result
        self._observer.finished(task, result.state, result.seconds)

    def _task(self, task: str) -> TaskRun:
        self._observer.started(task)
        begin = time.monotonic()
        try:
            run_one = self._import if "importer" in self._file.executor(task) else self._container
            result = run_one(task)
        except (StepError, UserError) as error:
            result = TaskRun(FAILED, message=str(error))
        return TaskRun(
            result.state, time.monotonic() - begin, result.attempts, result.message, result.execution_id
        )

    # The driver.

    def _import(self, task: str) -> TaskRun:
        importer = self._file.executor(task)["importer"]
        source = importer["artifactUri"]
        if "runtimeParameter" in source:
            name = source["runtimeParameter"]
            values = self._input_parameters(task)
            if name not in values:
                raise UserError(f"cannot find parameter {name} in task input to fetch artifact uri")
            uri = values[name]
        else:
            uri = source.get("constant", "")
        if not uri:
            raise UserError("empty Artifact URI")
        if "://" not in uri:
            raise UserError(f"no provider scheme found in artifact URI: {uri}")
        schema = importer["typeSchema"]["instanceSchema"]
        artifact = self._metadata.imported_artifact(
            schema, uri, importer.get("metadata", {}), session_info(uri, self._root)
        )
        (output,) = self._file.component(task)["outputDefinitions"]["artifacts"]
        execution = self._metadata.publish(task, IMPORTER, mlmd.Execution.COMPLETE, {output: artifact})
        return TaskRun(DONE, attempts=1, execution_id=execution)

    def _container(self, task: str) -> TaskRun:
        inputs = {"parameterValues": self._input_parameters(task), "artifacts": self._input_artifacts(task)}
        executor_input: Json = {"inputs": inputs}
        pod = self._options.store / "pods" / self._run_id / task
        executor_input["outputs"] = self._outputs(task, pod)

        fingerprint = ""
        if self._options.cache and self._file.tasks[task].get("cachingOptions", {}).get("enableCache"):
            fingerprint = self._fingerprint(task, executor_input)
            cached = self._metadata.cached(fingerprint)
            if cached is not None:
                return self._reuse(task, cached, executor_input)
        return self._attempts(task, executor_input, pod, fingerprint)

    def _input_parameters(self, task: str) -> dict[str, Json]:
        values: dict[str, Json] = {}
        for name, source in self._file.tasks[task].get("inputs", {}).get("parameters", {}).items():
            if "componentInputParameter" in source:
                outer = source["componentInputParameter"]
                if outer not in self._parameters:
                    raise UserError(f"parent DAG does not have input parameter {outer}")
                values[name] = self._parameters[outer]
            elif "taskOutputParameter" in source:
                producer = source["taskOutputParameter"]["producerTask"]
                if producer not in self._done:
                    raise UserError(f"producer task, {producer}, not in tasks")
                execution = self._done[producer].execution_id
                assert execution is not None
                values[name] = self._metadata.parameters(execution)[
                    source["taskOutputParameter"]["outputParameterKey"]
                ]
            else:
                values[name] = source["runtimeValue"]["constant"]
        declared = self._file.component(task).get("inputDefinitions", {}).get("parameters", {})
        for name, parameter in declared.items():
            if name not in values:
                if "defaultValue" not in parameter and not parameter.get("isOptional"):
                    raise UserError(
                        f"neither value nor default value provided for non-optional parameter {name!r}"
                    )
                continue
            kind = parameter["parameterType"]
            if kind == "STRING" and not isinstance(values[name], str):
                values[name] = json.dumps(values[name])
            elif not isinstance(values[name], _KINDS[kind]):
                raise UserError(f"input parameter {name!r} type mismatch: expect {kind}")
        return values

    def _input_artifacts(self, task: str) -> dict[str, Json]:
        artifacts = {}
        for name, source in self._file.tasks[task].get("inputs", {}).get("artifacts", {}).items():
            producer = source["taskOutputArtifact"]["producerTask"]
            key = source["taskOutputArtifact"]["outputArtifactKey"]
            if producer not in self._done:
                raise UserError(f"cannot find producer task {producer!r}")
            execution = self._done[producer].execution_id
            assert execution is not None
            outputs = self._metadata.outputs(execution)
            if key not in outputs:
                raise UserError(f"cannot find output artifact key {key!r} in producer task {producer!r}")
            handed_on = to_runtime_artifact(outputs[key], self._options.native_metadata)
            artifacts[name] = {"artifacts": [handed_on]}
        return artifacts

    def _outputs(self, task: str, pod: Path) -> Json:
        definitions = self._file.component(task).get("outputDefinitions", {})
        declared = dict(definitions.get("artifacts", {}))
        if self._options.publish_logs:
            declared[LOGS_OUTPUT] = {"artifactType": {"schemaTitle": LOG_TYPE}}
        task_root = f"{self._root}/{task}/{uuid.uuid4()}"
        artifacts = {}
        for name, spec in declared.items():
            artifact = {"name": name, "uri": f"{task_root}/{name}", "type": dict(spec["artifactType"])}
            if "metadata" in spec:
                artifact["metadata"] = spec["metadata"]
            artifacts[name] = {"artifacts": [artifact]}
        scheme, folder = next((s, f) for s, f in FOLDERS.items() if task_root.startswith(s))
        return {
            "artifacts": artifacts,
            "parameters": {
                name: {"outputFile": output_parameter_file(pod, name)}
                for name in definitions.get("parameters", {})
            },
            "outputFile": str(pod / folder / task_root.removeprefix(scheme) / OUTPUT_FILE),
        }

    def _fingerprint(self, task: str, executor_input: Json) -> str:
        """The cache's key: image, command, parameters, ids of inputs, names and types of outputs."""
        container = self._file.executor(task)["container"]
        settings = self._file.pod(task)
        key = {
            "inputs": {
                name: [artifact["name"] for artifact in artifacts["artifacts"]]
                for name, artifacts in executor_input["inputs"]["artifacts"].items()
            },
            "parameters": executor_input["inputs"]["parameterValues"],
            "outputs": {
                name: {k: v for k, v in artifacts["artifacts"][0].items() if k != "uri"}
                for name, artifacts in executor_input["outputs"]["artifacts"].items()
            },
            "output_parameters": sorted(executor_input["outputs"]["parameters"]),
            "command": [*container["command"], *container.get("args", [])],
            "image": container["image"],
            "claims": sorted({mount["constant"] for mount in settings.get("pvcMount", [])}),
        }
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()

    def _reuse(self, task: str, execution: int, executor_input: Json) -> TaskRun:
        known = self._metadata.outputs(execution)
        for name in executor_input["outputs"]["artifacts"]:
            if name not in known:
                raise StepError(f"unable to find artifact with name {name} in mlmd output artifacts")
        parameters = self._metadata.parameters(execution)
        made = self._metadata.publish(task, CONTAINER, mlmd.Execution.CACHED, known, parameters)
        return TaskRun(CACHED, execution_id=made)

    # Argo, and the launcher in each pod.

    def _attempts(self, task: str, executor_input: Json, pod: Path, fingerprint: str) -> TaskRun:
        policy = self._file.tasks[task].get("retryPolicy", {})
        retries = int(policy.get("maxRetryCount", 0))
        if policy.get("backoffMaxDuration", "0s") == "0s":
            retries = 0  # Argo: the longest duration is over before the first retry
        mounted = _mounted(executor_input, self._volumes(task))
        for attempt in range(retries + 1):
            try:
                published = self._launcher(pod).execute(
                    _with_retry_index(mounted, attempt),
                    self._file.component(task),
                    self._file.executor(task)["container"],
                )
            except StepError as error:
                self._metadata.publish(task, CONTAINER, mlmd.Execution.FAILED, {})
                if attempt == retries or self._ended:
                    return TaskRun(FAILED, attempts=attempt + 1, message=str(error))
                continue
            execution = self._metadata.publish(
                task,
                CONTAINER,
                mlmd.Execution.COMPLETE,
                published.artifacts,
                published.parameters,
                fingerprint,
            )
            return TaskRun(DONE, attempts=attempt + 1, execution_id=execution)
        raise AssertionError("unreachable: the last attempt returns")

    def _launcher(self, pod: Path) -> Launcher:
        return Launcher(self._objects, self._metadata, self._root, pod, self._say, self._pods)

    def _say(self, warning: str) -> None:
        with self._lock, (self._options.store / "warnings.log").open("a") as file:
            file.write(f"{warning}\n")

    def _volumes(self, task: str) -> dict[str, Path]:
        """A folder for each mount path of the task's pod."""
        settings = self._file.pod(task)
        folders = {}
        for mount in settings.get("pvcMount", []):
            folder = self._options.store / "volumes" / mount["constant"]
            folder.mkdir(parents=True, exist_ok=True)
            folders[mount["mountPath"]] = folder
        return folders


def _with_retry_index(executor_input: Json, attempt: int) -> Json:
    """A copy of the message whose log is that of one attempt."""
    made = copy.deepcopy(executor_input)
    logs = made["outputs"]["artifacts"].get(LOGS_OUTPUT)
    if logs:
        logs["artifacts"][0]["uri"] += f"-{attempt}"
    return made


def _mounted(executor_input: Json, volumes: Mapping[str, Path]) -> Json:
    """A copy of the message in which parameters name the folders that stand for volumes."""
    made = copy.deepcopy(executor_input)
    values = made["inputs"]["parameterValues"]
    for path, folder in volumes.items():
        pattern = re.compile(rf"(?<![\w/.-]){re.escape(path)}(?=[/\"']|$)")
        for name, value in values.items():
            if isinstance(value, str):
                values[name] = str(folder).join(pattern.split(value))
    return made
