"""What is in a compiled file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from kubeflow import bindings, parameters
from kubeflow.compile import compile_pipeline
from kubeflow.settings import KubeflowConfig, Node, Volume, load
from pipeline.cli.main import main
from pipeline.config import ConfigError, PipelineConfig
from pipeline.definition import create_pipeline
from pipeline.resolve import for_a_cluster
from tests.unit.components.image_example_gen.sources import data
from tests.unit.kubeflow.conftest import REPOSITORY, Compile

MNIST = str(Path(sys.executable).with_name("mnist"))
# What the images are, where no copy of them is here.
IMAGES = ("--set", "data.size=28x28", "--set", "data.num_classes=10")


@pytest.fixture(scope="module")
def four_gpus(compiled: Compile):
    return compiled(file=REPOSITORY / "kubeflow" / "configs" / "four-gpus.toml")


def executor(compiled_file, node: str) -> dict:
    return compiled_file.pipeline_spec["deploymentSpec"]["executors"][f"{node}_executor"]


@pytest.mark.slow
def test_both_documents_are_the_messages_that_the_backend_reads(four_gpus) -> None:
    pipeline, platform = yaml.safe_load_all(four_gpus.to_yaml())
    spec = json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(pipeline["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    assert spec.schema_version == "2.1.0"
    assert spec.default_pipeline_root == "minio://mlpipeline/v2/artifacts/mnist"
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    for settings in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        json_format.ParseDict(settings, kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def test_the_nodes_are_those_of_the_local_run(four_gpus) -> None:
    local = create_pipeline(PipelineConfig())
    assert set(four_gpus.pipeline_spec["root"]["dag"]["tasks"]) == {node.id for node in local.components}


@pytest.mark.slow
def test_the_command_writes_the_same_bytes_and_the_facts_of_the_data(
    tmp_path: Path, tiny_mnist_dir: Path
) -> None:
    """The same as is compiled in this process, where texts have other hashes."""
    done = subprocess.run(
        [MNIST, "compile", "-o", tmp_path / "f", "--set", "push.to=artifact", "--data-dir", tiny_mnist_dir],
        env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "97"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "f").read_text()
    config, kubeflow = load(None, ["push.to=artifact"])
    assert text == compile_pipeline(for_a_cluster(config, tiny_mnist_dir), kubeflow).to_yaml()
    assert str(REPOSITORY) not in text
    assert str(tiny_mnist_dir) not in text
    spec, _ = yaml.safe_load_all(text)
    fingerprint = spec["root"]["inputDefinitions"]["parameters"]["data_fingerprint"]["defaultValue"]
    assert fingerprint in done.stdout


def test_four_gpus_reach_the_trainer_alone(four_gpus) -> None:
    container = executor(four_gpus, "Trainer")["container"]
    assert container["resources"]["accelerator"] == {"type": "nvidia.com/gpu", "count": "4"}
    assert container["resources"]["resourceMemoryLimit"] == "64Gi"
    assert container["image"].endswith("-gpu")
    assert json.loads(_properties(four_gpus, "Trainer")["custom_config"])["gpus"] == 4
    kubernetes = four_gpus.platform_spec["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert kubernetes["Trainer_executor"]["nodeSelector"]["labels"] == {"nvidia.com/gpu.present": "true"}
    assert kubernetes["Trainer_executor"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert kubernetes["Trainer_executor"]["emptyDirMounts"] == [
        {"volumeName": "shm", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "8Gi"}
    ]
    for node, task in four_gpus.pipeline_spec["root"]["dag"]["tasks"].items():
        container = executor(four_gpus, node).get("container")
        if container is not None and node != "Trainer":
            assert "accelerator" not in container["resources"], task
            assert not container["image"].endswith("-gpu")


def test_retries_cache_and_resources_are_per_node(compiled: Compile) -> None:
    file = compiled(
        "kubeflow.node.retries=3",
        "kubeflow.nodes.DataGate.retries=0",
        "kubeflow.nodes.Transform.cache=false",
        "kubeflow.node.cpu=2",
        "kubeflow.nodes.Trainer.cpu=500m",
    )
    tasks = file.pipeline_spec["root"]["dag"]["tasks"]
    assert tasks["Trainer"]["retryPolicy"] == {
        "maxRetryCount": 3,
        "backoffDuration": "30s",
        "backoffFactor": 2,
        "backoffMaxDuration": "86400s",
    }
    assert "retryPolicy" not in tasks["DataGate"]
    assert "cachingOptions" not in tasks["Transform"]
    assert tasks["Trainer"]["cachingOptions"] == {"enableCache": True}
    assert executor(file, "Trainer")["container"]["resources"] == {"resourceCpuLimit": "500m"}
    assert executor(file, "Evaluator")["container"]["resources"] == {"resourceCpuLimit": "2"}


def test_secrets_env_labels_and_pull_secrets(tmp_path: Path, compiled: Compile) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(
        """
        [push]
        to = "artifact"
        [kubeflow]
        image_pull_secrets = ["regcred"]
        labels = { team = "digits" }
        service_account = "runner"
        [kubeflow.nodes.Trainer]
        env = { B = "2", A = "1" }
        secrets = [{ secret = "tracking", key = "token", env = "TOKEN" }]
        """
    )
    file = compiled(file=settings)
    assert executor(file, "Trainer")["container"]["env"] == [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "2"},
    ]
    kubernetes = file.platform_spec["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert kubernetes["Trainer_executor"]["secretAsEnv"][0]["keyToEnv"] == [
        {"secretKey": "token", "envVar": "TOKEN"}
    ]
    assert "secretAsEnv" not in kubernetes["Transform_executor"]
    for pod in kubernetes.values():
        assert pod["imagePullSecret"][0]["secretName"] == "regcred"
        assert pod["podMetadata"]["labels"] == {"team": "digits"}
    assert "# Service account: runner\n" in file.to_yaml()


@pytest.mark.slow
def test_a_given_baseline_is_imported_from_where_the_run_says(compiled: Compile) -> None:
    spec = compiled("baseline.uri=minio://mlpipeline/models/3").pipeline_spec
    assert spec["root"]["inputDefinitions"]["parameters"]["baseline_uri"] == {
        "parameterType": "STRING",
        "defaultValue": "minio://mlpipeline/models/3",
        "description": "Folder of the SavedModel to compare with, in the same bucket as the pipeline root.",
    }
    task = spec["root"]["dag"]["tasks"]["BaselineModel"]
    assert task["inputs"]["parameters"]["artifact_uri"] == {"componentInputParameter": "baseline_uri"}
    importer = spec["deploymentSpec"]["executors"]["BaselineModel_executor"]["importer"]
    assert importer["artifactUri"] == {"runtimeParameter": "artifact_uri"}
    source = spec["root"]["dag"]["tasks"]["Evaluator"]["inputs"]["artifacts"]["baseline_model"]
    assert source["taskOutputArtifact"]["producerTask"] == "BaselineModel"


@pytest.mark.slow
def test_what_a_training_begins_with_is_imported_for_it(compiled: Compile) -> None:
    begins = (
        "trainer.warm_start_from=s3://mlpipeline/old",
        "trainer.warm_start_checkpoint=model.ckpt-200",
        "trainer.warm_start_fingerprint=others",
        "trainer.continue=true",
    )
    spec = compiled(*begins).pipeline_spec
    importer = spec["deploymentSpec"]["executors"]["WarmStart_executor"]["importer"]
    assert importer["artifactUri"]["constant"] == "s3://mlpipeline/old"
    assert importer["metadata"] == {"fingerprint": "others"}
    trainer = spec["root"]["dag"]["tasks"]["Trainer"]["inputs"]
    assert trainer["artifacts"]["base_model"]["taskOutputArtifact"]["producerTask"] == "WarmStart"
    text = trainer["parameters"]["custom_config"]["runtimeValue"]["constant"]
    settings = json.loads(text)
    assert settings["warm_start_checkpoint"] == "model.ckpt-200"
    # Kubeflow's cache knows an imported artifact by its URI, and this node by its parameters too.
    assert settings["warm_start_fingerprint"] == "others"
    assert settings["continue"] is True
    with pytest.raises(
        ConfigError, match=r"^WarmStart: imports /old, which is in no object store; copy it"
    ):
        compiled("trainer.warm_start_from=/old")


def test_the_search_for_the_model_in_production_sees_the_pusher_s_volume(four_gpus) -> None:
    executors = four_gpus.platform_spec["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    mounted = executors["BaselineModel_executor"]["pvcMount"]
    assert mounted == executors["Pusher_executor"]["pvcMount"]
    assert mounted[0]["mountPath"] == "/serving"


def test_every_parameter_of_a_run_has_a_default_and_a_description(four_gpus) -> None:
    opened = four_gpus.pipeline_spec["root"]["inputDefinitions"]["parameters"]
    # That of a given baseline is there where one was given.
    assert set(opened) == {parameter.name for parameter in parameters.PARAMETERS} - {"baseline_uri"}
    for parameter in opened.values():
        assert parameter["description"]
        assert "defaultValue" in parameter
    assert opened["data_uri"]["defaultValue"] == "minio://mlpipeline/data/mnist"
    assert opened["push_destination"]["defaultValue"] == "/serving"


OTHER_VALUES = {
    "recipe": "tutorial",
    "train_steps": 77,
    "learning_rate": 0.25,
    "batch_size": 64,
    "accuracy": 0.5,
    "class_accuracy": 1.0,
    "model_name": "digits",
    "push_destination": "/serving/other",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_VALUES)
def test_a_parameter_of_a_run_does_what_the_setting_does(name: str, compiled: Compile) -> None:
    """Filling a value in when the node starts gives what compiling with that value would have given."""
    file = REPOSITORY / "kubeflow" / "configs" / "example.toml"
    parameter = next(p for p in parameters.PARAMETERS if p.name == name)
    plain, other = compiled(file=file), compiled(f"{parameter.setting}={OTHER_VALUES[name]}", file=file)
    values = {
        key: body["defaultValue"]
        for key, body in plain.pipeline_spec["root"]["inputDefinitions"]["parameters"].items()
    } | {name: OTHER_VALUES[name]}
    reached = 0
    for node, task in plain.pipeline_spec["root"]["dag"]["tasks"].items():
        args = executor(plain, node).get("container", {}).get("args", [])
        if bindings.FLAG not in args:
            continue
        bound = json.loads(args[args.index(bindings.FLAG) + 1])
        wanted = _properties(other, node)
        filled = _properties(plain, node)
        bindings.fill(filled, bound, values)
        other_defaults = {
            key: body["defaultValue"]
            for key, body in other.pipeline_spec["root"]["inputDefinitions"]["parameters"].items()
        }
        bindings.fill(wanted, bound, other_defaults)
        assert filled == wanted
        reached += any(f"{{{name}}}" in binding["template"] for binding in bound)
        assert task["inputs"]["parameters"]
    assert reached


def _properties(file, node: str) -> dict:
    return {
        name: value["runtimeValue"]["constant"]
        for name, value in file.pipeline_spec["root"]["dag"]["tasks"][node]["inputs"]["parameters"].items()
        if "runtimeValue" in value
    }


def test_zero_leaves_a_setting_to_the_recipe(compiled: Compile) -> None:
    file = compiled("trainer.train_steps=500", "trainer.batch_size=32")
    args = executor(file, "Trainer")["container"]["args"]
    bound = json.loads(args[args.index(bindings.FLAG) + 1])
    filled = _properties(file, "Trainer")
    values = {"recipe": "fast", "train_steps": 0, "batch_size": 16, "learning_rate": 0.0}
    bindings.fill(filled, bound, values)
    assert json.loads(filled["custom_config"])["overrides"] == {"batch_size": 16}


def test_data_come_in_by_an_importer_whose_uri_is_open(compiled: Compile) -> None:
    file = compiled("data.uri=s3://bucket/digits", "kubeflow.pipeline_root=s3://bucket/root")
    importer = executor(file, "Images")["importer"]
    assert importer["artifactUri"] == {"runtimeParameter": "artifact_uri"}
    assert "metadata" not in importer  # the fingerprint is a parameter of the run
    task = file.pipeline_spec["root"]["dag"]["tasks"]["Images"]
    assert task["inputs"]["parameters"]["artifact_uri"] == {"componentInputParameter": "data_uri"}
    generator = file.pipeline_spec["root"]["dag"]["tasks"]["ImageExampleGen"]
    assert generator["inputs"]["parameters"]["fingerprint"] == {
        "componentInputParameter": "data_fingerprint"
    }


@pytest.mark.slow
def test_what_images_are_goes_to_every_node_that_reads_them(tmp_path: Path) -> None:
    data.class_folders(tmp_path / "photos", per_class=12)
    settings = ["data.size=32x48", "data.fit=pad", "gates.class_examples=0", "push.to=artifact"]
    config, kubeflow = load(None, settings)
    spec = compile_pipeline(for_a_cluster(config, tmp_path / "photos"), kubeflow).pipeline_spec
    tasks = spec["root"]["dag"]["tasks"]
    wanted = {"shape": [32, 48, 3], "encoded": True, "fit": "pad"}

    def constant(node: str, name: str) -> dict:
        return json.loads(tasks[node]["inputs"]["parameters"][name]["runtimeValue"]["constant"])

    assert constant("ImageExampleGen", "images") == wanted
    for node in ("Transform", "Trainer"):
        assert constant(node, "custom_config")["images"] == wanted
    assert constant("Trainer", "custom_config")["class_names"] == list(data.CLASSES)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["kubeflow.node.gpuss=1"], "unknown setting 'kubeflow.node.gpuss'"),
        (["kubeflow.node.memory=4 GB"], "kubeflow.node.memory"),
        (["kubeflow.pipeline_root=/tmp/x"], "minio://, s3:// or gs://"),
        (["data.urii=x"], "did you mean data.uri"),
    ],
)
def test_a_bad_setting_is_named(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        load(None, settings)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[kubeflow\n")
    with pytest.raises(ConfigError, match=r"x\.toml"):
        load(tmp_path / "x.toml")


def test_settings_of_a_node_that_does_not_exist_are_refused(compiled: Compile) -> None:
    with pytest.raises(ConfigError, match="no node 'Trainr'"):
        compiled("kubeflow.nodes.Trainr.gpus=1")


def test_without_a_volume_the_model_stays_in_its_artifact() -> None:
    file = compile_pipeline(*load(None))
    parameters = file.pipeline_spec["root"]["dag"]["tasks"]["Pusher"]["inputs"]["parameters"]
    destination = json.loads(parameters["push_destination"]["runtimeValue"]["constant"])
    assert not destination["filesystem"].get("base_directory")


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted((REPOSITORY / "kubeflow" / "configs").glob("*.toml")), ids=str)
def test_every_example_compiles(compiled: Compile, file: Path) -> None:
    made = compiled(file=file)
    pods = made.platform_spec["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    containers = {
        label for label, e in made.pipeline_spec["deploymentSpec"]["executors"].items() if "container" in e
    }
    assert pods.keys() == containers
    assert all(pod["securityContext"] == {"runAsNonRoot": True} for pod in pods.values())


def test_a_trainer_with_a_volume_keeps_its_checkpoints_there() -> None:
    node = Node(volumes=(Volume(claim="work", path="/work"),))
    file = compile_pipeline(PipelineConfig(), KubeflowConfig(nodes={"Trainer": node}))
    trainer = file.pipeline_spec["root"]["dag"]["tasks"]["Trainer"]["inputs"]["parameters"]
    settings = json.loads(trainer["custom_config"]["runtimeValue"]["constant"])
    assert settings["checkpoint_dir"] == "/work/.checkpoints/mnist"


def checkpoint_dir(*settings: str) -> str:
    config, kubeflow = load(None, settings)
    trainer = compile_pipeline(config, kubeflow).pipeline_spec["root"]["dag"]["tasks"]["Trainer"]
    custom_config = json.loads(trainer["inputs"]["parameters"]["custom_config"]["runtimeValue"]["constant"])
    return custom_config.get("checkpoint_dir", "")


@pytest.mark.slow
def test_in_a_bucket_that_tensorflow_opens_there_are_checkpoints_without_a_volume() -> None:
    assert checkpoint_dir("kubeflow.pipeline_root=gs://b/root") == "gs://b/root/.checkpoints/mnist"
    assert checkpoint_dir("kubeflow.pipeline_root=s3://b/root") == ""
    assert checkpoint_dir("trainer.checkpoint_dir=gs://b/x") == "gs://b/x"
    with pytest.raises(ConfigError, match="which TensorFlow cannot open; name a folder on a volume"):
        checkpoint_dir("trainer.checkpoint_dir=s3://b/x")


@pytest.mark.slow
def test_a_refusal_is_one_line_a_reason_and_no_file(tmp_path: Path) -> None:
    settings = ["--set", "data.uri=minio://elsewhere/data", "--set", "push.to=artifact", *IMAGES]
    done = CliRunner().invoke(main, ["compile", "-o", str(tmp_path / "x.yaml"), *settings])
    assert done.exit_code == 2
    assert done.stderr.startswith("mnist: Images: imports from minio://elsewhere")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x.yaml").exists()


def test_compiling_costs_little_more_than_importing_tfx(compiled: Compile) -> None:
    compiled()
    begin = time.perf_counter()
    compiled().to_yaml()
    assert time.perf_counter() - begin < 1  # of the 5 s and more that the import takes


@pytest.mark.slow
@pytest.mark.parametrize("command", [["compile"], ["kubeflow"], ["kubeflow", "emulate"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    done = subprocess.run(
        [MNIST, *command, "--help"],
        env={"PYTHONPROFILEIMPORTTIME": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"tensorflow", "tfx", "apache_beam", "ml_metadata"}
