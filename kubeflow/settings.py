"""The typed settings of a compiled pipeline: where it keeps things, and what each node gets."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator

from pipeline import config as pipeline_config
from pipeline import product
from pipeline.config import ConfigError, PipelineConfig
from pipeline.sections import Section

SCHEMES = ("minio", "s3", "gs")

# Kubernetes' own formats, so that a typing mistake stops here and not in a pod that never starts.
Quantity = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?)?$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
MountPath = Annotated[str, Field(pattern=r"^/[^:]*[^:/]$")]
LabelKey = Annotated[str, Field(pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$", max_length=63)]


class Toleration(Section):
    """Lets pods run on tainted nodes, as GPU nodes usually are."""

    key: str = Field("", description="the taint's key; empty: every key")
    operator: Literal["Equal", "Exists"] = Field("Exists", description="how the value is compared")
    value: str = Field("", description="the taint's value, for Equal")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        "NoSchedule", description="the taint's effect; empty: every effect"
    )


class Affinity(Section):
    """A label of machines that a pod needs, or prefers."""

    key: LabelKey = Field(description="label of the machine")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        "In", description="how its value is compared"
    )
    values: tuple[str, ...] = Field((), description="with which; none for Exists and DoesNotExist")
    weight: int = Field(
        0, ge=0, le=100, description="how much such a machine is preferred; 0: the pod runs on no other"
    )

    @model_validator(mode="after")
    def _has_its_values(self) -> Self:
        # Kubernetes refuses the pod otherwise, long after the file was submitted.
        match self.operator:
            case "Exists" | "DoesNotExist":
                right, takes = not self.values, "no values"
            case "Gt" | "Lt":
                right, takes = len(self.values) == 1, "one value"
            case _:
                right, takes = bool(self.values), "values"
        if not right:
            raise ValueError(f"operator {self.operator} takes {takes}")
        return self


class SecretEnv(Section):
    """One key of a secret as an environment variable."""

    secret: Name = Field(description="name of the secret")
    key: str = Field(description="key inside the secret")
    env: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="name of the variable")
    optional: bool = Field(False, description="start the pod even where the secret is missing")


class Volume(Section):
    """A persistent volume claim, mounted."""

    claim: Name = Field(description="name of an existing claim in the run's namespace")
    path: MountPath = Field(description="where it is mounted")


class Node(Section):
    """What one node's pod gets. A field that a node does not set is taken from `kubeflow.node`."""

    image: str = Field("", description="container image; empty: kubeflow.image, or gpu_image with GPUs")
    cpu_request: Quantity = Field("", description="CPU cores that are reserved")
    cpu: Quantity = Field("", description="CPU cores at most")
    memory_request: Quantity = Field("", description="memory that is reserved")
    memory: Quantity = Field("", description="memory at most")
    gpus: int = Field(0, ge=0, description="number of GPUs")
    gpu_type: str = Field("nvidia.com/gpu", description="Kubernetes' name of the GPU resource")
    shared_memory: Quantity = Field("", description="size of /dev/shm; several GPUs in one pod need it")
    node_selector: dict[LabelKey, LabelValue] = Field({}, description="labels that the machine must have")
    node_affinity: tuple[Affinity, ...] = Field(
        (), description="labels that the machine must have, with other comparisons, or should have"
    )
    tolerations: tuple[Toleration, ...] = Field((), description="taints that the pod does not mind")
    secrets: tuple[SecretEnv, ...] = Field((), description="secrets as environment variables")
    volumes: tuple[Volume, ...] = Field((), description="volume claims and where they are mounted")
    env: dict[str, str] = Field({}, description="plain environment variables")
    cache: bool = Field(True, description="reuse the results of an earlier run with equal inputs")
    retries: int = Field(2, ge=0, description="how often a failed pod is started again")
    retry_wait_s: PositiveInt = Field(30, description="seconds before the first retry")
    # Argo reads a whole number.
    retry_factor: PositiveInt = Field(2, description="each wait is so many times the last")
    retry_within_s: PositiveInt = Field(
        86_400, description="no retry after so many seconds since the first attempt began"
    )
    deadline_s: int = Field(0, ge=0, description="a pod older than this is killed; 0: never")
    workers: int = Field(
        1, ge=1, le=64, description="pods like this one that train together; the Trainer's alone"
    )


class KubeflowConfig(Section):
    """Where the compiled pipeline keeps things and how its pods look."""

    pipeline_root: str = Field(
        f"minio://mlpipeline/v2/artifacts/{product.NAME}",
        description="folder of the artifacts in an object store",
    )
    image: str = Field(f"{product.DISTRIBUTION}:latest", min_length=1, description="image of every node")
    gpu_image: str = Field("", description="image of nodes with GPUs; empty: kubeflow.image")
    image_pull_policy: Literal["", "Always", "Never", "IfNotPresent"] = Field(
        "", description="when the image is pulled; empty: Kubernetes' default"
    )
    image_pull_secrets: tuple[Name, ...] = Field((), description="secrets for a private image registry")
    service_account: str = Field("", description="account of the run's pods; empty: the backend's default")
    labels: dict[LabelKey, LabelValue] = Field({}, description="labels of every pod")
    annotations: dict[LabelKey, str] = Field({}, description="annotations of every pod")
    ttl_after_success_s: int = Field(
        0, ge=0, description="the pods of a run go so many seconds after it succeeded; 0: the server's own"
    )
    ttl_after_failure_s: int = Field(0, ge=0, description="the same after it failed")
    node: Node = Field(Node(), description="what every node gets")
    nodes: dict[str, Node] = Field({}, description="what single nodes get instead, by node id")

    @field_validator("pipeline_root")
    @classmethod
    def _in_an_object_store(cls, root: str) -> str:
        if bucket(root) is None:
            raise ValueError("must be minio://, s3:// or gs:// with a bucket")
        return root.rstrip("/")

    def of(self, node: str) -> Node:
        """The settings of one node: its own, and those of every node where it says nothing."""
        own = self.nodes.get(node)
        if own is None:
            return self.node
        return Node.model_validate(self.node.model_dump() | own.model_dump(exclude_unset=True))

    def image_of(self, node: str) -> str:
        """The image that a node runs in."""
        settings = self.of(node)
        return settings.image or (settings.gpus and self.gpu_image) or self.image


def bucket(uri: str) -> str | None:
    """`scheme://bucket` of an object store's URI, None where it is none."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in SCHEMES and parts.netloc else None


def load(file: Path | None, settings: Iterable[str] = ()) -> tuple[PipelineConfig, KubeflowConfig]:
    """The settings of a TOML file, changed by `key=value` settings.

    The file has the tables of PipelineConfig and one named `kubeflow`. A setting that begins with
    `kubeflow.` is one of KubeflowConfig; dots lead into tables (`kubeflow.nodes.Trainer.gpus=4`).

    Raises:
        ConfigError: for a file that is no TOML, an unknown key or a wrong value; one line.
        OSError: where the file cannot be read.
    """
    try:
        tables = tomllib.loads(file.read_text()) if file else {}
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}") from None
    own = tables.pop("kubeflow", {})
    others = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key.startswith("kubeflow.") and equals:
            _set(own, key.split(".")[1:], value)
        else:
            others.append(setting)
    config = pipeline_config.with_settings(pipeline_config.build(tables), others)
    return config, _build(own)


def _set(table: dict[str, Any], path: list[str], value: str) -> None:
    for name in path[:-1]:
        table = table.setdefault(name, {})
    table[path[-1]] = value


def _build(values: dict[str, Any]) -> KubeflowConfig:
    try:
        return KubeflowConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in ("kubeflow", *first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"unknown setting {key!r}") from None
        raise ConfigError(f"{key}: {reason[:1].lower()}{reason[1:]}, got {first['input']!r}") from None
