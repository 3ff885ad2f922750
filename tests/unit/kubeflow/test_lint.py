"""Each rule, with a pipeline that breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tfx.components import CsvExampleGen, InfraValidator, StatisticsGen, Trainer
from tfx.dsl.components.common.importer import Importer
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import example_gen_pb2, infra_validator_pb2
from tfx.types import Channel, standard_artifacts
from tfx.types.artifact import Artifact, Property, PropertyType

from components.artifacts import Images
from components.curated_schema.component import CuratedSchema
from components.image_example_gen.component import ImageExampleGen
from kubeflow import lint
from kubeflow.compile import CompileError, compile_pipeline
from kubeflow.settings import KubeflowConfig
from kubeflow.spec import File
from pipeline.config import PipelineConfig
from pipeline.definition import create_pipeline
from tests.unit.kubeflow.conftest import REPOSITORY, Compile

Spec = dict[str, Any]
FOUR_GPUS = REPOSITORY / "kubeflow" / "configs" / "four-gpus.toml"


def with_more(*more: Callable[[Pipeline], Any]) -> Callable[[PipelineConfig], Pipeline]:
    """The project's pipeline with further nodes, made from it."""

    def definition(config: PipelineConfig) -> Pipeline:
        pipeline = create_pipeline(config)
        for make in more:
            add(pipeline, make(pipeline))
        return pipeline

    return definition


def add(pipeline: Pipeline, component: Any) -> None:
    with pipeline.dsl_context_registry.temporary_mutable():
        pipeline.dsl_context_registry.put_node(component)
    pipeline.components = [*pipeline.components, component]


def refusal(*more: Callable[[Pipeline], Any]) -> str:
    config = PipelineConfig().replace("push", to="artifact")
    with pytest.raises(CompileError) as error:
        compile_pipeline(config, KubeflowConfig(), definition=with_more(*more))
    return str(error.value)


def node(pipeline: Pipeline, name: str) -> Any:
    return next(component for component in pipeline.components if component.id == name)


def test_our_pipeline_is_clean(compiled: Compile) -> None:
    file = compiled(file=FOUR_GPUS)
    assert lint.check(File(file.pipeline_spec, file.platform_spec)) == []


def test_a_resolver_is_refused() -> None:
    said = refusal(
        lambda _: Resolver(
            strategy_class=LatestBlessedModelStrategy,
            model=Channel(type=standard_artifacts.Model),
            model_blessing=Channel(type=standard_artifacts.ModelBlessing),
        ).with_id("Latest")
    )
    assert "Latest-model-resolver: the backend has no resolver nodes" in said


def test_an_infra_validator_is_refused() -> None:
    said = refusal(
        lambda pipeline: InfraValidator(
            model=node(pipeline, "Trainer").outputs["model"],
            serving_spec=infra_validator_pb2.ServingSpec(),
        )
    )
    assert "TFX cannot compile the pipeline for Kubeflow" in said
    assert "InfraValidator" in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my_schema", "my.schema", "-schema", "s" * 122])
def test_a_node_id_that_argo_does_not_take_is_refused(name: str) -> None:
    assert f"{name}: Argo allows" in refusal(lambda _: CuratedSchema(schema_text="").with_id(name))


def test_a_file_based_example_gen_is_refused() -> None:
    said = refusal(
        lambda _: CsvExampleGen(
            input_base="minio://mlpipeline/csv",
            input_config=example_gen_pb2.Input(
                splits=[example_gen_pb2.Input.Split(name="all", pattern="span-{SPAN}/*")]
            ),
        )
    )
    assert "CsvExampleGen: needs a driver before its executor" in said
    assert "CsvExampleGen.input_base: names minio://mlpipeline/csv" in said
    assert "CsvExampleGen.input_config: nothing fills in {SPAN}" in said


def test_a_module_file_is_refused(tmp_path: Any) -> None:
    module = tmp_path / "module.py"
    module.write_text("def run_fn(fn_args): ...\n")

    def trainer(pipeline: Pipeline) -> Trainer:
        made = Trainer(
            run_fn="x.run_fn", examples=node(pipeline, "ImageExampleGen").outputs["examples"]
        ).with_id("Other")
        made.exec_properties["module_file"] = str(module)
        return made

    assert "Other.module_file: a module file is not there in the container" in refusal(trainer)


class NoModule(Artifact):
    """A type name without a module."""

    TYPE_NAME = "NoModule"


class WithProperties(Artifact):
    """Typed properties, for which Kubeflow has no place."""

    TYPE_NAME = "tests.WithProperties"
    PROPERTIES = {"size": Property(type=PropertyType.INT)}  # noqa: RUF012


@pytest.mark.parametrize(("artifact", "said"), [(NoModule, "NoModule"), (WithProperties, "size")])
def test_an_artifact_type_that_gets_lost_is_refused(artifact: type[Artifact], said: str) -> None:
    message = refusal(
        lambda _: Importer(source_uri="minio://mlpipeline/x", artifact_type=artifact).with_id("Other")
    )
    assert said in message


def test_a_runtime_parameter_in_the_definition_is_refused() -> None:
    said = refusal(lambda _: CuratedSchema(schema_text=RuntimeParameter("text", str)).with_id("Other"))
    assert "RuntimeParameters of its own" in said


def test_a_placeholder_of_another_nodes_value_is_refused() -> None:
    def with_value(pipeline: Pipeline) -> ImageExampleGen:
        text = Importer(
            source_uri="minio://mlpipeline/text", artifact_type=standard_artifacts.String
        ).with_id("Text")
        add(pipeline, text)
        made = ImageExampleGen(dataset=node(pipeline, "Images").outputs["result"]).with_id("Other")
        made.exec_properties["fingerprint"] = text.outputs["result"].future()[0].value
        made.add_upstream_node(text)
        return made

    assert "Other.fingerprint: takes its value from a task 'Text_task'" in refusal(with_value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "minio://elsewhere/data",
            "imports from minio://elsewhere, but the pipeline root is in minio://mlpipeline",
        ),
        ("/data/mnist", "which is in no object store"),
        ("", "its URI is empty"),
    ],
)
def test_an_importer_outside_of_the_bucket_is_refused(uri: str, said: str) -> None:
    made = refusal(lambda _: Importer(source_uri=uri, artifact_type=Images).with_id("Other"))
    assert f"Other: imports {'nothing: ' * (not uri)}" in made or "Other: imports from" in made
    assert said in made


def test_a_remote_uri_that_is_no_artifact_is_refused() -> None:
    said = refusal(lambda _: CuratedSchema(schema_text="s3://bucket/schema.pbtxt").with_id("Other"))
    assert "Other.schema_text: names s3://bucket/schema.pbtxt, which nobody downloads" in said


def _edited(compiled: Compile, edit: Callable[[Spec, Spec], None]) -> list[str]:
    """The findings in a good file after an edit of its two specs."""
    file = compiled(file=FOUR_GPUS)
    pipeline, platform = copy.deepcopy(file.pipeline_spec), copy.deepcopy(file.platform_spec)
    edit(pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"])
    return [str(finding) for finding in lint.check(File(pipeline, platform))]


def _container(pipeline: Spec, label: str) -> Spec:
    return pipeline["deploymentSpec"]["executors"][label]["container"]


EDITS: dict[str, tuple[Callable[[Spec, Spec], Any], str]] = {
    "an old schema version": (
        lambda pipeline, _: pipeline.update(schemaVersion="2.0.0"),
        "schemaVersion: the backend takes 2.1.0 alone, this is 2.0.0",
    ),
    "a custom job": (
        lambda pipeline, _: pipeline["deploymentSpec"]["executors"].update(
            Trainer_executor={"customJob": {}}
        ),
        "Trainer: the backend runs containers and importers, not ['customJob']",
    ),
    "a type name without a module": (
        lambda pipeline, _: pipeline["components"]["DataGate"]["outputDefinitions"]["artifacts"][
            "blessing"
        ]["artifactType"].update(instanceSchema="title: DataBlessing\ntype: object\n"),
        "DataGate.blessing: the artifact's TYPE_NAME 'DataBlessing' must be <top module>.<Class>",
    ),
    "a type with properties": (
        lambda pipeline, _: pipeline["components"]["DataGate"]["outputDefinitions"]["artifacts"][
            "blessing"
        ]["artifactType"].update(instanceSchema="title: a.B\nproperties:\n  x:\n    type: int\n"),
        "DataGate.blessing: a.B has PROPERTIES",
    ),
    "a parameter without a default": (
        lambda pipeline, _: pipeline["root"]["inputDefinitions"]["parameters"]["recipe"].pop(
            "defaultValue"
        ),
        "parameter recipe: has no default",
    ),
    "a condition on an importer": (
        lambda pipeline, _: pipeline["root"]["dag"]["tasks"]["Images"].update(
            triggerPolicy={"condition": "true"}
        ),
        "Images: the backend allows no condition on an importer",
    ),
    "an accelerator of another cloud": (
        lambda pipeline, _: _container(pipeline, "Trainer_executor")["resources"]["accelerator"].update(
            type="NVIDIA_TESLA_T4"
        ),
        "Trainer: the accelerator 'NVIDIA_TESLA_T4' is no resource of Kubernetes",
    ),
    "a module file": (
        lambda pipeline, _: pipeline["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"].update(
            module_path={"runtimeValue": {"constant": "module@/root/_wheels/module.whl"}}
        ),
        "Trainer.module_path: a module file is not there in the container",
    ),
    "no image": (
        lambda pipeline, _: _container(pipeline, "Trainer_executor").pop("image"),
        "Trainer: has no image",
    ),
    "a retry that never happens": (
        lambda pipeline, _: pipeline["root"]["dag"]["tasks"]["Trainer"]["retryPolicy"].pop(
            "backoffMaxDuration"
        ),
        "Trainer: is never retried",
    ),
    "a broken factor": (
        lambda pipeline, _: pipeline["root"]["dag"]["tasks"]["Trainer"]["retryPolicy"].update(
            backoffFactor=1.5
        ),
        "Trainer: Argo reads the retry's factor as a whole number",
    ),
    "settings of no executor": (
        lambda _, kubernetes: kubernetes.update(Trainr_executor={}),
        "platform spec Trainr_executor: there is no such executor",
    ),
    "shared memory that nobody mounts": (
        lambda _, kubernetes: kubernetes["Trainer_executor"].update(enabledSharedMemory={"size": "8Gi"}),
        "platform spec Trainer_executor: the backend ignores enabledSharedMemory",
    ),
    "a claim mounted twice": (
        lambda _, kubernetes: kubernetes["Pusher_executor"]["pvcMount"].append(
            {"constant": "mnist-models", "mountPath": "/other"}
        ),
        "platform spec Pusher_executor: mounts the claim mnist-models twice",
    ),
    "a volume over the launcher's folder": (
        lambda _, kubernetes: kubernetes["Pusher_executor"]["pvcMount"].append(
            {"constant": "x", "mountPath": "/minio"}
        ),
        "platform spec Pusher_executor: mounts a volume at /minio",
    ),
    "a pod that may be root": (
        lambda _, kubernetes: kubernetes["Trainer_executor"].pop("securityContext"),
        "Trainer: its pod does not say runAsNonRoot",
    ),
    "a push into the pod": (
        lambda _, kubernetes: kubernetes["Pusher_executor"].pop("pvcMount"),
        "Pusher: pushes to /serving/mnist, which is on no mounted volume",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_file_is_refused(edit: str, compiled: Compile) -> None:
    change, said = EDITS[edit]
    (found,) = _edited(compiled, change)
    assert found.startswith(said)


@pytest.mark.slow
def test_every_rule_is_broken_by_a_test_of_its_own(compiled: Compile) -> None:
    """The edits and definitions above together reach each rule; this counts those of the edits."""
    broken = set()
    for change, _ in EDITS.values():
        file = compiled(file=FOUR_GPUS)
        pipeline, platform = copy.deepcopy(file.pipeline_spec), copy.deepcopy(file.platform_spec)
        change(pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"])
        broken |= {rule.__name__ for rule in lint.RULES if list(rule(File(pipeline, platform)))}
    by_definitions = {"task_names", "hooks", "span_patterns", "remote_paths", "producers"}
    assert broken | by_definitions | {"importers"} == {rule.__name__ for rule in lint.RULES}


def test_statistics_on_the_cluster_need_no_rule_of_their_own() -> None:
    """A node more that fits is not refused."""
    config = PipelineConfig().replace("push", to="artifact")
    file = compile_pipeline(
        config,
        KubeflowConfig(),
        definition=with_more(
            lambda pipeline: StatisticsGen(
                examples=node(pipeline, "ImageExampleGen").outputs["examples"]
            ).with_id("More")
        ),
    )
    assert "More" in file.pipeline_spec["root"]["dag"]["tasks"]
