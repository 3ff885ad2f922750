"""The pipeline's definition to one file for Kubeflow: a PipelineSpec, and a PlatformSpec for Kubernetes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as tfx_runner
from tfx.orchestration.pipeline import Pipeline

from kubeflow import bindings, lint, parameters, platform
from kubeflow.bindings import Binding
from kubeflow.entrypoint import WORKERS_FLAG
from kubeflow.parameters import Parameter
from kubeflow.settings import KubeflowConfig, Node, bucket
from kubeflow.spec import File
from pipeline import product
from pipeline.config import ConfigError, PipelineConfig
from pipeline.definition import create_pipeline
from pipeline.nodes import NodeId

Json = Any
ENTRYPOINT = ("python", "-m", "kubeflow.entrypoint")
CHECKPOINTS = (
    ".checkpoints"  # on the Trainer's volume, or in the bucket; servers look at folders with a number alone
)
INPUTS_SPEC_FLAG = "--json_serialized_inputs_spec_args"
_DESCRIPTION = "MNIST from IDX files to a pushed model."


class CompileError(ConfigError):
    """The definition cannot become a pipeline that Kubeflow runs; the text has a line for each reason."""


@dataclass(frozen=True)
class Compiled:
    """What one file holds."""

    pipeline_spec: dict[str, Json]
    platform_spec: dict[str, Json]
    service_account: str

    def to_yaml(self) -> str:
        """The file's text, a document for each spec; equal specs give equal bytes."""
        documents = [self.pipeline_spec] + ([self.platform_spec] if self.platform_spec else [])
        return "".join(_comments(self)) + yaml.dump_all(
            documents, Dumper=_Dumper, sort_keys=True, width=100, allow_unicode=True
        )


def compile_pipeline(
    config: PipelineConfig,
    kubeflow: KubeflowConfig,
    definition: Callable[[PipelineConfig], Pipeline] = create_pipeline,
    entrypoint: tuple[str, ...] = ENTRYPOINT,
) -> Compiled:
    """Compile the pipeline of the local run for Kubeflow.

    Args:
        config: the settings of the pipeline; where it says nothing about places, they follow from
            `kubeflow`: the data lie in the bucket of its pipeline root, and the Trainer needs the GPUs of
            its pod.
        kubeflow: the settings of the pods.
        definition: makes the pipeline from its settings.
        entrypoint: what each container runs.

    Raises:
        CompileError: where the definition or the settings cannot work on Kubeflow.
        ConfigError: for settings of nodes that do not exist.
    """
    config = _for_the_cluster(config, kubeflow)
    kubeflow = _with_the_volume_of_models(config, kubeflow)
    spec = _compile(definition(config), kubeflow, entrypoint)
    unknown = set(kubeflow.nodes) - set(spec["root"]["dag"]["tasks"])
    if unknown:
        names = ", ".join(sorted(spec["root"]["dag"]["tasks"]))
        raise ConfigError(f"kubeflow.nodes: there is no node {min(unknown)!r}; there are {names}")
    for node in spec["root"]["dag"]["tasks"]:
        if node != NodeId.TRAINER and kubeflow.of(node).workers > 1:
            raise ConfigError(
                f"{node} is no work of several pods: set kubeflow.nodes.Trainer.workers alone"
            )
    if "inputDefinitions" in spec["root"]:
        raise CompileError(
            "the definition has RuntimeParameters of its own; kubeflow/parameters.py has them"
        )

    open_parameters = parameters.open_parameters(config)
    probes = _compile(definition(parameters.probed(config, open_parameters)), kubeflow, entrypoint)
    _open(spec, probes, open_parameters, config)
    _tasks(spec, config, kubeflow)
    spec["defaultPipelineRoot"] = kubeflow.pipeline_root
    containers = {
        label: node
        for node, label in _labels(spec)
        if "container" in spec["deploymentSpec"]["executors"][label]
    }
    compiled = Compiled(spec, platform.platform_spec(kubeflow, containers), kubeflow.service_account)
    findings = lint.check(File(compiled.pipeline_spec, compiled.platform_spec))
    if findings:
        raise CompileError("\n".join(str(finding) for finding in findings))
    return compiled


def _for_the_cluster(config: PipelineConfig, kubeflow: KubeflowConfig) -> PipelineConfig:
    if not config.data.uri:
        uri = f"{bucket(kubeflow.pipeline_root)}/data/{config.data.dataset}"
        config = config.replace("data", uri=uri)
    if config.push.to == "folder" and not config.push.destination:
        volumes = kubeflow.of(NodeId.PUSHER).volumes
        # Without a volume there is no folder that outlives the pod; a plain Kubeflow Pipelines has none.
        push = {"destination": volumes[0].path} if volumes else {"to": "artifact"}
        config = config.replace("push", **push)
    lasting = _lasting_folder(kubeflow)
    if lasting and not config.trainer.checkpoint_dir:
        # A pod that is started again goes on from there.
        config = config.replace("trainer", checkpoint_dir=f"{lasting}/{CHECKPOINTS}/{config.name}")
    gpus = kubeflow.of(NodeId.TRAINER).gpus
    if gpus and not config.trainer.gpus:
        # A pod that was given GPUs and sees none shall fail at once.
        config = config.replace("trainer", gpus=gpus)
    return config


def _lasting_folder(kubeflow: KubeflowConfig) -> str:
    """Where the Trainer can write what outlives its pod; "" where there is nothing.

    TensorFlow opens gs:// by itself, with what the pod may do, and no other object store.
    """
    volumes = kubeflow.of(NodeId.TRAINER).volumes
    if volumes:
        return volumes[0].path
    return kubeflow.pipeline_root if kubeflow.pipeline_root.startswith("gs://") else ""


def _with_the_volume_of_models(config: PipelineConfig, kubeflow: KubeflowConfig) -> KubeflowConfig:
    """Let the node that looks for the model in production see the volume that Pusher pushes to."""
    if config.push.to != "folder" or config.baseline.uri or kubeflow.of(NodeId.BASELINE_MODEL).volumes:
        return kubeflow
    own = kubeflow.nodes.get(NodeId.BASELINE_MODEL, Node()).model_dump(exclude_unset=True)
    node = Node.model_validate(own | {"volumes": kubeflow.of(NodeId.PUSHER).volumes})
    return kubeflow.model_copy(update={"nodes": {**kubeflow.nodes, NodeId.BASELINE_MODEL: node}})


def _compile(pipeline: Pipeline, kubeflow: KubeflowConfig, entrypoint: tuple[str, ...]) -> dict[str, Json]:
    nodes = [component for component in pipeline.components if isinstance(component, BaseComponent)]
    for component in nodes:
        if component.exec_properties.get("module_file"):
            # TFX would pack it into a wheel, and write that below a root that is not there in the cluster.
            raise CompileError(str(lint.Finding(f"{component.id}.module_file", lint.MODULE_FILE)))
        resources = platform.resources(kubeflow.of(component.id))
        if resources.ListFields():
            component.with_platform_config(resources)
    images = {component.id: kubeflow.image_of(component.id) for component in nodes}
    runner = tfx_runner.KubeflowV2DagRunner(
        tfx_runner.KubeflowV2DagRunnerConfig(
            default_image={"default_image_path": kubeflow.image} | images,
            default_commands=list(entrypoint),
            use_pipeline_spec_2_1=True,
        )
    )
    try:
        return runner.run(pipeline, write_out=False)["pipelineSpec"]
    except (NotImplementedError, TypeError, ValueError, KeyError) as error:
        # These are what TFX's compiler raises for a component that it has no form for.
        raise CompileError(f"TFX cannot compile the pipeline for Kubeflow: {error}") from error


def _labels(spec: dict[str, Json]) -> Iterator[tuple[str, str]]:
    for node, task in spec["root"]["dag"]["tasks"].items():
        label = spec["components"][task["componentRef"]["name"]].get("executorLabel")
        if label is not None:
            yield node, label


def _open(
    spec: dict[str, Json], probes: dict[str, Json], opened: tuple[Parameter, ...], config: PipelineConfig
) -> None:
    """Make parameters of the settings that a run may change."""
    found = parameters.bindings(_constants(spec), _constants(probes), opened)
    spec["root"]["inputDefinitions"] = {
        "parameters": {
            p.name: {
                "parameterType": p.type,
                "defaultValue": p.default(config),
                "description": p.description,
            }
            for p in opened
        }
    }
    types = {p.name: p.type for p in opened}
    inside_json: dict[str, list[Binding]] = {}
    for binding in found:
        task = spec["root"]["dag"]["tasks"][binding.task]
        names = bindings.names_in(binding.template)
        if not binding.path and binding.template == f"{{{names[0]}}}":
            task["inputs"]["parameters"][binding.input] = {"componentInputParameter": names[0]}
            continue
        inside_json.setdefault(binding.task, []).append(binding)
        component = spec["components"][task["componentRef"]["name"]]
        for name in names:
            of_node = bindings.PREFIX + name
            task["inputs"]["parameters"][of_node] = {"componentInputParameter": name}
            component["inputDefinitions"]["parameters"][of_node] = {"parameterType": types[name]}
    for node, label in _labels(spec):
        component = spec["components"][node]
        executor = spec["deploymentSpec"]["executors"][label]
        if "importer" in executor:
            _open_importer(spec, probes, node, label)
        elif node in inside_json:
            args = executor["container"]["args"]
            inputs = json.dumps(component["inputDefinitions"], sort_keys=True, indent=2)
            args[args.index(INPUTS_SPEC_FLAG) + 1] = inputs
            args += [bindings.FLAG, _text([bindings.as_json(b) for b in inside_json[node]])]


def _open_importer(spec: dict[str, Json], probes: dict[str, Json], node: str, label: str) -> None:
    importer = spec["deploymentSpec"]["executors"][label]["importer"]
    probe = probes["deploymentSpec"]["executors"][label]["importer"]
    if importer["artifactUri"] != probe["artifactUri"]:
        importer["artifactUri"] = {"runtimeParameter": "artifact_uri"}
    # Metadata of an importer are constants; what a run may change cannot stand there.
    artifacts = spec["components"][node]["outputDefinitions"]["artifacts"].values()
    for metadata in [importer.get("metadata", {}), *(a.get("metadata", {}) for a in artifacts)]:
        for key, value in probe.get("metadata", {}).items():
            if metadata.get(key, value) != value:
                del metadata[key]
    for holder in [importer, *artifacts]:
        if holder.get("metadata") == {}:
            del holder["metadata"]


def _constants(spec: dict[str, Json]) -> dict[str, dict[str, Json]]:
    return {
        node: {
            name: value["runtimeValue"]["constant"]
            for name, value in task.get("inputs", {}).get("parameters", {}).items()
            if "runtimeValue" in value
        }
        for node, task in spec["root"]["dag"]["tasks"].items()
    }


def _tasks(spec: dict[str, Json], config: PipelineConfig, kubeflow: KubeflowConfig) -> None:
    """Caching, retries and environment of each node."""
    for node, label in _labels(spec):
        task, settings = spec["root"]["dag"]["tasks"][node], kubeflow.of(node)
        # What is in production is no input that the cache knows of: both look each time, and the Evaluator
        # compares with what is there.
        looks = config.push.to == "folder" and node in (NodeId.PUSHER, NodeId.BASELINE_MODEL)
        if config.cache and settings.cache and not looks:
            task["cachingOptions"] = {"enableCache": True}
        else:
            task.pop("cachingOptions", None)
        container = spec["deploymentSpec"]["executors"][label].get("container")
        if container is None:
            continue
        policy = platform.retry_policy(settings)
        if policy:
            task["retryPolicy"] = policy
        if settings.env:
            container["env"] = [{"name": k, "value": v} for k, v in sorted(settings.env.items())]
        if settings.workers > 1:
            container["args"] += [WORKERS_FLAG, str(settings.workers)]


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def _comments(compiled: Compiled) -> Iterator[str]:
    spec = compiled.pipeline_spec
    yield f"# {spec['pipelineInfo']['name']}: {_DESCRIPTION}\n"
    name = product.NAME
    yield f"# Made by `{name} compile`, for `{name} submit` and `{name} kubeflow emulate`.\n"
    if compiled.service_account:
        yield f"# Service account: {compiled.service_account}\n"
    yield "# Parameters:\n"
    for name, parameter in sorted(spec["root"]["inputDefinitions"]["parameters"].items()):
        yield f"#   {name} = {_text(parameter['defaultValue'])}: {parameter['description']}\n"


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, as one reads them."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text_node)
