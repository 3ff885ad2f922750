"""A compiled file being read: the one place that knows how its two documents are laid out."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline import product
from pipeline.errors import UserError

Json = Any
SCHEMA_VERSION = "2.1.0"
_SERVICE_ACCOUNT = re.compile(r"\A(?:#.*\n)*# Service account: (\S+)$", re.MULTILINE)


class SpecError(UserError):
    """A compiled file, or a parameter of its run, that cannot be used: one line for a person."""


@dataclass(frozen=True)
class File:
    """Both specs of a compiled file, and the ways through them.

    Attributes:
        pipeline: the PipelineSpec as JSON.
        platform: the PlatformSpec as JSON, {} where there is none.
        service_account: of the pods, as `mnist compile` noted it; None: the server's own. It is part of a
            run, not of a pipeline, so the file holds it in a comment.
    """

    pipeline: dict[str, Json]
    platform: dict[str, Json]
    service_account: str | None = None

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.pipeline["pipelineInfo"]["name"]

    @property
    def pipeline_root(self) -> str:
        """Where it was compiled to keep its artifacts; no part of a server reads this."""
        return self.pipeline.get("defaultPipelineRoot", "")

    @property
    def tasks(self) -> dict[str, Json]:
        """The root's tasks by name."""
        return self.pipeline.get("root", {}).get("dag", {}).get("tasks", {})

    @property
    def executors(self) -> dict[str, Json]:
        """Executors by label."""
        return self.pipeline.get("deploymentSpec", {}).get("executors", {})

    @property
    def kubernetes(self) -> dict[str, Json]:
        """Kubernetes settings by executor label."""
        platforms = self.platform.get("platforms", {}).get("kubernetes", {})
        return platforms.get("deploymentSpec", {}).get("executors", {})

    @property
    def parameters(self) -> dict[str, Json]:
        """What a run may set, by name."""
        return self.pipeline.get("root", {}).get("inputDefinitions", {}).get("parameters", {})

    def to_yaml(self) -> str:
        """Both documents as the API server and kfp's client read them."""
        documents = [self.pipeline, self.platform] if self.platform else [self.pipeline]
        return yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True)

    def component(self, task: str) -> dict[str, Json]:
        """The component of a task, {} where it is missing."""
        return self.pipeline.get("components", {}).get(self.tasks[task]["componentRef"]["name"], {})

    def executor(self, task: str) -> dict[str, Json]:
        """The executor of a task, {} where it is missing."""
        return self.executors.get(self.component(task).get("executorLabel", ""), {})

    def pod(self, task: str) -> dict[str, Json]:
        """The Kubernetes settings of a task's pod, {} where it has none."""
        return self.kubernetes.get(self.component(task).get("executorLabel", ""), {})

    def values(self, task: str, given: Mapping[str, Json] | None = None) -> Iterator[tuple[str, Json]]:
        """A task's parameters as far as they are known before the run: constants, given ones, defaults."""
        for name, source in self.tasks[task].get("inputs", {}).get("parameters", {}).items():
            if "runtimeValue" in source:
                yield name, source["runtimeValue"].get("constant")
            elif "componentInputParameter" in source:
                outer = source["componentInputParameter"]
                default = self.parameters.get(outer, {}).get("defaultValue")
                yield name, (given or {}).get(outer, default)

    def mounts(self, task: str) -> list[str]:
        """Where a task's pod has volumes."""
        return [mount["mountPath"] for mount in self.pod(task).get("pvcMount", [])]

    def order(self) -> list[str]:
        """The tasks, each after those that it depends on.

        Raises:
            SpecError: where some wait for each other, or for one that does not exist.
        """
        left = {name: set(task.get("dependentTasks", ())) for name, task in sorted(self.tasks.items())}
        for name, needs in left.items():
            if missing := sorted(needs - self.tasks.keys()):
                raise SpecError(f"{name} depends on {missing[0]}, which does not exist")
        order: list[str] = []
        while left:
            ready = [name for name, needs in left.items() if not needs & left.keys()]
            if not ready:
                raise SpecError(f"these nodes wait for each other: {', '.join(left)}")
            for name in ready:
                del left[name]
            order += ready
        return order

    def arguments(self, settings: Iterable[str]) -> dict[str, Json]:
        """The parameters of a run from `name=value` settings, each in the type that the pipeline declares.

        Raises:
            SpecError: for an unknown name, a value of the wrong type, or a parameter that has no value.
        """
        given: dict[str, Json] = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals:
                raise SpecError(f"{setting!r} is not of the form name=value")
            given[name] = _typed(name, text, self.declared(name)["parameterType"])
        self.with_defaults(given)
        return given

    def declared(self, name: str) -> dict[str, Json]:
        """What the pipeline says of a parameter; raises SpecError for one that it does not have."""
        if name in self.parameters:
            return self.parameters[name]
        near = difflib.get_close_matches(name, self.parameters, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(self.parameters))}"
        raise SpecError(f"the pipeline has no parameter {name!r}: {hint}")

    def with_defaults(self, given: Mapping[str, Json]) -> dict[str, Json]:
        """A value for each parameter; raises SpecError where there is none."""
        values = dict(given)
        for name, parameter in sorted(self.parameters.items()):
            if name in values:
                continue
            if "defaultValue" in parameter:
                values[name] = parameter["defaultValue"]
            elif not parameter.get("isOptional"):
                raise SpecError(f"the pipeline needs a value for {name}: --param {name}=…")
        return values


def read(text: str) -> File:
    """Read the text of a compiled file as the API server does.

    Raises:
        SpecError: for what the API server refuses.
    """
    pipeline: Json = None
    platform: Json = {}
    try:
        for document in yaml.safe_load_all(text):
            if document is None:
                continue
            if "pipelineInfo" in document:
                json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
                deployment = document.get("deploymentSpec", {})
                json_format.ParseDict(deployment, pipeline_spec_pb2.PipelineDeploymentConfig())
                pipeline = document
            elif "platforms" in document:
                json_format.ParseDict(document, pipeline_spec_pb2.PlatformSpec())
                platform = document
    except (yaml.YAMLError, json_format.ParseError, TypeError) as error:
        raise SpecError(f"not a compiled pipeline: {str(error).splitlines()[0]}") from None
    if pipeline is None:
        raise SpecError("not a compiled pipeline: it has no pipeline spec")
    version = pipeline.get("schemaVersion")
    if version != SCHEMA_VERSION:
        raise SpecError(f"has schema {version or '?'}; Kubeflow Pipelines reads {SCHEMA_VERSION}")
    account = _SERVICE_ACCOUNT.search(text)
    return File(pipeline, platform, account[1] if account else None)


def read_file(path: Path) -> File:
    """Read a compiled file.

    Raises:
        SpecError: where it is no file of `mnist compile`.
        OSError: where it cannot be read.
    """
    if path.suffix not in (".yaml", ".yml"):  # kfp's client takes no other
        raise SpecError(f"{path}: the file of a compiled pipeline ends in .yaml")
    try:
        return read(path.read_text())
    except (SpecError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: {error}; `{product.NAME} compile -o {path}` makes one") from None


def _typed(name: str, text: str, kind: str) -> Json:
    try:
        match kind:
            case "NUMBER_INTEGER":
                return int(text)
            case "NUMBER_DOUBLE":
                return float(text)
            case "BOOLEAN":
                return {"true": True, "false": False}[text.lower()]
            case "LIST" | "STRUCT":
                value = json.loads(text)
                if not isinstance(value, list if kind == "LIST" else dict):
                    raise ValueError
                return value
    except (ValueError, KeyError):
        raise SpecError(f"{name} takes a {kind.lower().replace('_', ' ')}, not {text!r}") from None
    return text
