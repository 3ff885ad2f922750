"""Refuses what an open-source Kubeflow Pipelines backend rejects, or accepts and then misreads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from kubeflow.bindings import decode
from kubeflow.entrypoint import CHECKPOINT_DIR
from kubeflow.platform import SHARED_MEMORY
from kubeflow.settings import SCHEMES, bucket
from kubeflow.spec import SCHEMA_VERSION, File

MODULE_FILE = (
    "a module file is not there in the container; name the code by dotted path, it is part of the image"
)
LONGEST_TASK_NAME = 128 - len("-driver")  # Argo's limit; each task gets a driver of its own
_TASK_NAME = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")
_TITLE = re.compile(r"[a-z][a-z0-9_-]*\.[A-Z][A-Za-z0-9_-]*")
_SPAN = re.compile(r"\{(SPAN|VERSION|YYYY|MM|DD)(:[^}]*)?\}")
_RESOURCE = re.compile(r"[a-z0-9.-]+/[A-Za-z0-9._-]+")
_LAUNCHER_FOLDERS = ("/oci", "/kfp-launcher", "/kfp-workspace")
_ARTIFACT_FOLDERS = (
    "/minio",
    "/s3",
    "/gcs",
)  # of the launcher too: each bucket has a folder in one of them


@dataclass(frozen=True)
class Finding:
    """One thing that would not work."""

    place: str
    reason: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.place}: {self.reason}"


Rule = Callable[[File], Iterator[Finding]]


def check(file: File) -> list[Finding]:
    """Everything that would not work, each with what to do; [] for a good file."""
    return [finding for rule in RULES for finding in rule(file)]


def schema_version(file: File) -> Iterator[Finding]:
    """The backend reads one version of the language."""
    version = file.pipeline.get("schemaVersion")
    if version != SCHEMA_VERSION:
        yield Finding(
            "schemaVersion",
            f"the backend takes {SCHEMA_VERSION} alone, this is {version}; compile it again",
        )


def executor_kinds(file: File) -> Iterator[Finding]:
    """Containers and importers are all that the backend runs."""
    for task in file.tasks:
        kinds = set(file.executor(task))
        if "resolver" in kinds:
            yield Finding(
                task,
                "the backend has no resolver nodes; bring the artifact in with an Importer, or find it in "
                "a component of your own",
            )
        elif not kinds & {"container", "importer"} and "dag" not in file.component(task):
            yield Finding(
                task,
                f"the backend runs containers and importers, not {sorted(kinds) or 'nothing'}; make it a "
                "component with an executor",
            )


def task_names(file: File) -> Iterator[Finding]:
    """Task names become names in Argo."""
    for task in file.tasks:
        if not _TASK_NAME.fullmatch(task):
            yield Finding(task, "Argo allows letters, digits and '-' in a node id, nothing else: rename it")
        elif len(task) > LONGEST_TASK_NAME:
            yield Finding(
                task, f"Argo allows node ids of {LONGEST_TASK_NAME} characters, not {len(task)}: shorten it"
            )


def producers(file: File) -> Iterator[Finding]:
    """A value that another task produces must name a task that exists; TFX writes `<id>_task`."""
    for task, body in file.tasks.items():
        for name, source in body.get("inputs", {}).get("parameters", {}).items():
            producer = source.get("taskOutputParameter", {}).get("producerTask")
            if producer is not None and producer not in file.tasks:
                yield Finding(
                    f"{task}.{name}",
                    f"takes its value from a task {producer!r}, which does not exist (TFX names producers "
                    "of values wrongly); hand the value on as an artifact",
                )


def span_patterns(file: File) -> Iterator[Finding]:
    """Nobody fills in TFX's span patterns: its drivers do not run on Kubeflow."""
    for task in file.tasks:
        for name, value in file.values(task):
            if isinstance(value, str) and (match := _SPAN.search(value)):
                yield Finding(f"{task}.{name}", f"nothing fills in {match[0]} on Kubeflow; name the folder")


def user_code(file: File) -> Iterator[Finding]:
    """Code comes in the image."""
    for task in file.tasks:
        for name, value in file.values(task):
            if name in ("module_file", "module_path") and value:
                yield Finding(f"{task}.{name}", MODULE_FILE)


def hooks(file: File) -> Iterator[Finding]:
    """TFX's file based ExampleGens rely on a hook that the backend ignores."""
    for task in file.tasks:
        if "lifecycle" in file.executor(task).get("container", {}):
            yield Finding(
                task,
                "needs a driver before its executor (preCacheCheck), which the backend ignores; use an "
                "ExampleGen that takes an artifact",
            )


def artifact_types(file: File) -> Iterator[Finding]:
    """An artifact's class is found again by its type name."""
    for task in file.tasks:
        component = file.component(task)
        for side in ("inputDefinitions", "outputDefinitions"):
            for name, artifact in component.get(side, {}).get("artifacts", {}).items():
                schema = yaml.safe_load(artifact["artifactType"].get("instanceSchema", "")) or {}
                title = schema.get("title", "")
                if title.startswith("tfx."):
                    continue
                if not _TITLE.fullmatch(title):
                    yield Finding(
                        f"{task}.{name}",
                        f"the artifact's TYPE_NAME {title!r} must be <top module>.<Class>, so that TFX "
                        "finds the class in the container",
                    )
                elif schema.get("properties"):
                    yield Finding(
                        f"{task}.{name}",
                        f"{title} has PROPERTIES, which get lost on Kubeflow; use custom properties",
                    )


def defaults(file: File) -> Iterator[Finding]:
    """TFX drops the defaults of its runtime parameters."""
    for name, parameter in file.parameters.items():
        if "defaultValue" not in parameter and not parameter.get("isOptional"):
            yield Finding(f"parameter {name}", "has no default, so every run must name it; give it one")


def importers(file: File) -> Iterator[Finding]:
    """What is imported must be within reach of the launcher."""
    yield from imports(file, file.pipeline_root, {})


def imports(file: File, pipeline_root: str, given: Mapping[str, Any]) -> Iterator[Finding]:
    """What a run would import that the launcher cannot download.

    Of `minio://` the launcher opens the pipeline root's bucket alone, with that bucket's credentials; other
    buckets of `s3://` and `gs://` it opens with what the pod itself may do.

    Args:
        file: the compiled pipeline.
        pipeline_root: of the run.
        given: values of parameters; for the others, the defaults count.
    """
    root = bucket(pipeline_root)
    for task, body in file.tasks.items():
        importer = file.executor(task).get("importer")
        if importer is None:
            continue
        if body.get("triggerPolicy", {}).get("condition"):
            yield Finding(
                task, "the backend allows no condition on an importer; put it on the node after it"
            )
        uri = importer.get("artifactUri", {}).get("constant")
        if uri is None:
            name = importer.get("artifactUri", {}).get("runtimeParameter", "")
            uri = dict(file.values(task, given)).get(name)
        if not uri:
            yield Finding(task, "imports nothing: its URI is empty; name a folder in the bucket")
        elif bucket(uri) is None:
            yield Finding(
                task, f"imports {uri}, which is in no object store; copy it to one of {', '.join(SCHEMES)}"
            )
        elif uri.startswith("minio://") and bucket(uri) != root:
            yield Finding(
                task,
                f"imports from {bucket(uri)}, but the pipeline root is in {root}; of minio:// the launcher "
                "opens that one bucket, so copy the data there",
            )


def remote_paths(file: File) -> Iterator[Finding]:
    """Only artifacts are downloaded and uploaded; checkpoints on GCS are TensorFlow's own business."""
    for task in file.tasks:
        if "container" not in file.executor(task):
            continue
        for name, value in file.values(task):
            if not isinstance(value, str):
                continue
            settings = decode(value)
            folder = settings.get(CHECKPOINT_DIR, "") if isinstance(settings, dict) else ""
            if isinstance(folder, str) and folder.startswith("gs://"):
                value = json.dumps({key: each for key, each in settings.items() if key != CHECKPOINT_DIR})
            match = re.search(rf"\b({'|'.join(SCHEMES)})://[^\s\"']+", value)
            if match and match[0] == folder:
                yield Finding(
                    f"{task}.{name}",
                    f"keeps its checkpoints in {folder}, which TensorFlow cannot open; name a folder on a "
                    "volume of that node, or one of gs://",
                )
            elif match:
                yield Finding(
                    f"{task}.{name}",
                    f"names {match[0]}, which nobody downloads or uploads: only artifacts are; use an "
                    "Importer, a mounted volume or an output artifact",
                )


def accelerators(file: File) -> Iterator[Finding]:
    """The backend takes the accelerator's type as the name of a Kubernetes resource."""
    for task in file.tasks:
        accelerator = file.executor(task).get("container", {}).get("resources", {}).get("accelerator")
        if accelerator is not None and not _RESOURCE.fullmatch(accelerator.get("type", "")):
            yield Finding(
                task,
                f"the accelerator {accelerator.get('type', '')!r} is no resource of Kubernetes; "
                "set gpu_type to one, like nvidia.com/gpu",
            )


def images(file: File) -> Iterator[Finding]:
    """A container needs an image."""
    for task in file.tasks:
        container = file.executor(task).get("container")
        if container is not None and not container.get("image"):
            yield Finding(task, "has no image; set kubeflow.image")


def retries(file: File) -> Iterator[Finding]:
    """Argo retries within the longest duration alone, and reads the factor as a whole number."""
    for task, body in file.tasks.items():
        policy = body.get("retryPolicy")
        if policy is None:
            continue
        if policy.get("backoffMaxDuration", "0s") == "0s":
            yield Finding(task, "is never retried: Argo needs a backoffMaxDuration; set retry_within_s")
        if not float(policy.get("backoffFactor", 0)).is_integer():
            yield Finding(task, "Argo reads the retry's factor as a whole number; set retry_factor to one")


def platform_labels(file: File) -> Iterator[Finding]:
    """Kubernetes settings of an executor that does not exist are ignored."""
    for label in file.kubernetes:
        if label not in file.executors:
            yield Finding(
                f"platform spec {label}",
                "there is no such executor, so its settings are ignored; name a node of the pipeline",
            )


def shared_memory(file: File) -> Iterator[Finding]:
    """There is a message for shared memory, and no backend that reads it."""
    for label, settings in file.kubernetes.items():
        if "enabledSharedMemory" in settings:
            yield Finding(
                f"platform spec {label}",
                "the backend ignores enabledSharedMemory; mount an emptyDir of medium Memory at "
                f"{SHARED_MEMORY}",
            )


def volumes(file: File) -> Iterator[Finding]:
    """Volumes must not hide the launcher's folders, and a claim can be mounted once in a pod."""
    for label, settings in file.kubernetes.items():
        claims = [mount.get("constant") for mount in settings.get("pvcMount", [])]
        for claim in sorted({c for c in claims if c is not None and claims.count(c) > 1}):
            yield Finding(
                f"platform spec {label}",
                f"mounts the claim {claim} twice, which Kubernetes refuses; mount it once",
            )
        for mount in settings.get("pvcMount", []):
            path = PurePosixPath(mount["mountPath"])
            hidden = any(path.is_relative_to(folder) for folder in _LAUNCHER_FOLDERS)
            # A whole bucket on a volume is how workers on other machines see the artifacts.
            if hidden or str(path) in _ARTIFACT_FOLDERS:
                yield Finding(
                    f"platform spec {label}",
                    f"mounts a volume at {mount['mountPath']}, the launcher's own folder; "
                    "mount it elsewhere",
                )


def restricted_profile(file: File) -> Iterator[Finding]:
    """A namespace with `pod-security.kubernetes.io/enforce=restricted` refuses the pod, without a word."""
    for task in file.tasks:
        if "container" not in file.executor(task):
            continue
        if not file.pod(task).get("securityContext", {}).get("runAsNonRoot"):
            yield Finding(
                task,
                "its pod does not say runAsNonRoot, which restricted namespaces ask for; compile it again",
            )


def push_destination(file: File) -> Iterator[Finding]:
    """What is pushed into the pod's own file system is gone with the pod."""
    for task in file.tasks:
        destination = dict(file.values(task)).get("push_destination")
        if "container" not in file.executor(task) or not isinstance(destination, str):
            continue
        match = re.search(r'"base_?[dD]irectory":\s*"([^"]+)"', destination)
        if match and not any(PurePosixPath(match[1]).is_relative_to(mount) for mount in file.mounts(task)):
            yield Finding(
                task,
                f"pushes to {match[1]}, which is on no mounted volume and gone with the pod; mount a "
                "volume claim there, or set push.to = 'artifact'",
            )


RULES: tuple[Rule, ...] = (
    schema_version,
    executor_kinds,
    task_names,
    producers,
    span_patterns,
    user_code,
    hooks,
    artifact_types,
    defaults,
    importers,
    remote_paths,
    accelerators,
    images,
    retries,
    platform_labels,
    shared_memory,
    volumes,
    restricted_profile,
    push_destination,
)
