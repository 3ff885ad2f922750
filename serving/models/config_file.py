"""The configuration files of TF Serving, in protobuf's text format: which models, and how to batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from serving.models import config_protos
from serving.models.batching_parameters import BatchingParameters, Join
from serving.models.object_store import StoreFolder, place
from serving.protocol.errors import invalid
from serving.protocol.protos import model_server_config_pb2

PLATFORM = "tensorflow"
BATCHING_FILE = "batching_params.pbtxt"  # in a version's folder, for --enable_per_model_batching_parameters
TENSORFLOW_TYPE = 1  # ModelType TENSORFLOW, which came before platforms


class ConfigFileError(ValueError):
    """A configuration file that cannot be used, with the reason in one line."""


@dataclass(frozen=True)
class Policy:
    """Which of the versions in a folder are served."""

    latest: int = 1  # that many of the newest; 0 with `specific` or `every`
    every: bool = False
    specific: tuple[int, ...] = ()

    def choose(self, found: Iterable[int]) -> set[int]:
        """The versions to serve, among those found."""
        versions = sorted(found, reverse=True)
        if self.every:
            return set(versions)
        if self.specific:
            return set(versions) & set(self.specific)
        return set(versions[: self.latest])


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve."""

    name: str
    base_path: Path | StoreFolder  # the folder of the version folders
    policy: Policy = Policy()
    labels: dict[str, int] = field(default_factory=dict)


def folder_of(base_path: str) -> Path | StoreFolder:
    """Where the versions of a model lie that the command line names: an absolute folder, or one in a store.

    Raises:
        ConfigFileError: for a URI that is none of an object store.
    """
    try:
        found = place(base_path)
    except ValueError as error:
        raise ConfigFileError(str(error)) from None
    return found.absolute() if isinstance(found, Path) else found


def read_models(path: Path) -> list[ModelConfig]:
    """Read a model config file (`ModelServerConfig`).

    Raises:
        ConfigFileError: for what is no such file, or a configuration that cannot be served.
        OSError: when it cannot be read.
    """
    message = model_server_config_pb2.ModelServerConfig()
    _parse(path, message)
    try:
        return models_of(message)
    except Exception as error:
        raise ConfigFileError(f"{path}: {getattr(error, 'message', error)}") from None


def models_of(message: model_server_config_pb2.ModelServerConfig) -> list[ModelConfig]:
    """The models that a configuration names.

    Raises:
        ServingError: INVALID_ARGUMENT in TF Serving's words.
    """
    if message.WhichOneof("config") == "custom_model_config":
        raise invalid("custom_model_config is not supported: name the models in a model_config_list")
    configs: dict[str, ModelConfig] = {}
    for model in message.model_config_list.config:
        if model.name in configs:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        try:
            base_path = place(model.base_path)
        except ValueError as error:
            raise invalid(str(error)) from None
        if isinstance(base_path, Path) and not base_path.is_absolute():
            raise invalid(
                f"Expected model {model.name} to have an absolute path or URI;"
                f" got base_path()={model.base_path}"
            )
        platform = _platform(model)
        if platform != PLATFORM:
            raise invalid(f"Model {model.name} requests unsupported platform {platform}")
        configs[model.name] = ModelConfig(
            model.name,
            base_path,
            _policy(model.model_version_policy),
            dict(model.version_labels),
        )
    return list(configs.values())


def _platform(model: Any) -> str:
    if model.model_type and model.model_platform:
        raise invalid(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            f"ModelServerConfig::model_platform, model name is {model.name}"
        )
    if model.model_type:
        return PLATFORM if model.model_type == TENSORFLOW_TYPE else f"model_type {model.model_type}"
    if not model.model_platform:
        raise invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {model.name}"
        )
    return str(model.model_platform)


def _policy(message: Any) -> Policy:
    choice = message.WhichOneof("policy_choice")
    if choice == "all":
        return Policy(latest=0, every=True)
    if choice == "specific" and message.specific.versions:
        return Policy(latest=0, specific=tuple(message.specific.versions))
    if choice == "specific":
        return Policy(latest=0)
    return Policy(latest=max(message.latest.num_versions, 1))


def read_batching(path: Path) -> BatchingParameters:
    """Read a batching parameters file (`BatchingParameters`).

    Raises:
        ConfigFileError: for what is no such file, or for values that make no sense.
        OSError: when it cannot be read.
    """
    message = config_protos.new("BatchingParameters")
    _parse(path, message)
    defaults = BatchingParameters()
    values = {
        name: getattr(message, name).value if message.HasField(name) else getattr(defaults, name)
        for name in ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    }
    sizes = tuple(message.allowed_batch_sizes)
    for name, value in values.items():
        if value < (0 if name == "batch_timeout_micros" else 1):
            raise ConfigFileError(f"{path}: {name} must be positive, but is {value}")
    if sizes and (
        list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != values["max_batch_size"]
    ):
        raise ConfigFileError(
            f"{path}: allowed_batch_sizes must increase, and the last one must be max_batch_size"
        )
    splitting = message.enable_large_batch_splitting.value
    part = message.max_execution_batch_size.value if splitting else 0
    if not 0 <= part <= values["max_batch_size"]:
        raise ConfigFileError(
            f"{path}: max_execution_batch_size must be at least 1 and at most max_batch_size"
        )
    return BatchingParameters(
        join=Join.ALL,
        **values,
        allowed_batch_sizes=sizes,
        pad_variable_length_inputs=message.pad_variable_length_inputs,
        enable_large_batch_splitting=splitting,
        max_execution_batch_size=part,
    )


def read_monitoring(path: Path) -> str | None:
    """Where a monitoring config file (`MonitoringConfig`) wants the metrics; None where it wants none.

    Returns:
        A path of the REST port; empty for the usual one.

    Raises:
        ConfigFileError: for what is no such file.
        OSError: when it cannot be read.
    """
    message = config_protos.new("MonitoringConfig")
    _parse(path, message)
    return message.prometheus_config.path if message.prometheus_config.enable else None


def read_ssl(path: Path) -> Any:
    """Read a file of keys and certificates (`SSLConfig`), as the message that it is.

    Raises:
        ConfigFileError: for what is no such file.
        OSError: when it cannot be read.
    """
    message = config_protos.new("SSLConfig")
    _parse(path, message)
    return message


def _parse(path: Path, message: Any) -> None:
    try:
        text_format.Parse(path.read_text("utf-8"), message)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        kind = message.DESCRIPTOR.full_name
        raise ConfigFileError(f"{path}: Error parsing text-format {kind}: {error}") from None
