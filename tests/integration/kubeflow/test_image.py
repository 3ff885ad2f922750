"""The container image: what is in it, and a step of the compiled pipeline in it. Opt-in: `make test-image`.

TEST_IMAGE names the image, TEST_ENGINE the engine (podman or docker), TEST_RUN_ARGS its options.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from setup.image_inputs import lock_sha256
from tests.conftest import TINY_TEST, TINY_TRAIN
from tests.unit.kubeflow.conftest import REPOSITORY, Compile

IMAGE = os.environ.get("TEST_IMAGE", "")
ENGINE = os.environ.get("TEST_ENGINE", "podman")
MAX_BYTES = 3.2 * 10**9  # of the cpu target
USER = "10001"
STEP = "minio://mlpipeline/v2/artifacts/mnist/ImageExampleGen"  # folder of the step's outputs

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(not IMAGE, reason="TEST_IMAGE is not set: make test-image"),
]


def run_in_image(*command: str, mounts: dict[Path, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in the image as a pod would: as the image's user, without any capability."""
    options = ["run", "--rm", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    for folder, place in (mounts or {}).items():
        options += ["--volume", f"{folder}:{place}"]
    extra = shlex.split(os.environ.get("TEST_RUN_ARGS", ""))
    return subprocess.run(
        [ENGINE, *options, *extra, IMAGE, *command], capture_output=True, text=True, check=False
    )


def output(*command: str, mounts: dict[Path, str] | None = None) -> str:
    """What a command in the image prints; it has to succeed."""
    done = run_in_image(*command, mounts=mounts)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """What the engine knows of the image."""
    done = subprocess.run([ENGINE, "image", "inspect", IMAGE], capture_output=True, text=True, check=True)
    (known,) = json.loads(done.stdout)
    return known


def test_the_image_is_small(facts: dict[str, Any]) -> None:
    assert facts["Size"] < MAX_BYTES


def test_labels_tell_lock_file_and_code(facts: dict[str, Any]) -> None:
    labels = facts["Config"]["Labels"]
    program = (
        "from pathlib import Path; from setup.image_inputs import code_sha256;"
        "print(code_sha256(Path('/opt/app')))"
    )
    in_image = output(
        *("env", "PYTHONPATH=/mnt", "python", "-c", program),
        mounts={REPOSITORY / "setup": "/mnt/setup:ro"},
    )

    assert labels["code.sha256"] == in_image
    assert labels["lock.sha256"] == lock_sha256()


def test_nothing_that_builds_is_left_and_nothing_can_be_changed() -> None:
    assert output("id", "-u") == USER
    for tool in ("cc", "gcc", "make", "uv", "patchelf"):
        assert run_in_image("sh", "-c", f"command -v {tool}").returncode != 0
    assert run_in_image("touch", "/opt/app/pipeline/new.py").returncode != 0
    assert run_in_image("touch", "/opt/env/bin/new").returncode != 0


def test_every_module_is_compiled_in_a_way_that_no_copying_spoils() -> None:
    program = """
import importlib.util, pathlib, sys
missing = stale = 0
for root in ("/opt/app", *pathlib.Path("/opt/env/lib").glob("python3.*/site-packages/tensorflow")):
    for source in pathlib.Path(root).rglob("*.py"):
        compiled = pathlib.Path(importlib.util.cache_from_source(str(source)))
        if not compiled.exists():
            missing += 1
        elif compiled.read_bytes()[4:8] != b"\\x01\\x00\\x00\\x00":  # PEP 552: hash-based, not checked
            stale += 1
print(missing, stale)
"""
    assert output("python", "-c", program) == "0 0"


def test_the_command_line_works() -> None:
    assert "Commands:" in output("mnist", "--help")


@pytest.fixture
def store(tmp_path: Path, tiny_mnist_dir: Path) -> Iterator[Path]:
    """What the launcher has downloaded before the step, in a folder that any user may write to."""
    folder = tmp_path / "minio"
    shutil.copytree(tiny_mnist_dir, folder / "mlpipeline" / "data")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o644)
    yield folder
    # What the container's user has written is not this user's to remove.
    run_in_image("sh", "-c", "rm -rf /minio/mlpipeline/v2", mounts={folder: "/minio"})


def parameters(pipeline: dict[str, Any], task: str) -> dict[str, Any]:
    """What the backend gives a task: constants, and runtime parameters at their defaults."""
    of_run = pipeline["root"].get("inputDefinitions", {}).get("parameters", {})
    return {
        name: of_run[given["componentInputParameter"]]["defaultValue"]
        if "componentInputParameter" in given
        else given["runtimeValue"]["constant"]
        for name, given in pipeline["root"]["dag"]["tasks"][task]["inputs"]["parameters"].items()
    }


def example_gen(pipeline: dict[str, Any], folder: str) -> list[str]:
    """The command of ImageExampleGen in a compiled pipeline, as the launcher calls it.

    Args:
        pipeline: the pipeline spec.
        folder: remote folder of the step's outputs.
    """
    container = pipeline["deploymentSpec"]["executors"]["ImageExampleGen_executor"]["container"]
    outputs = pipeline["components"]["ImageExampleGen"]["outputDefinitions"]["artifacts"]
    examples = {
        "name": "examples",
        "uri": f"{folder}/examples",
        "type": outputs["examples"]["artifactType"],
    }
    dataset = {"name": "1", "uri": "minio://mlpipeline/data", "type": {"instanceSchema": ""}}
    message = {
        "inputs": {
            "parameterValues": parameters(pipeline, "ImageExampleGen"),
            "artifacts": {"dataset": {"artifacts": [dataset]}},
        },
        "outputs": {
            "artifacts": {"examples": {"artifacts": [examples]}},
            "outputFile": f"{folder.replace('minio://', '/minio/')}/output_metadata.json",
        },
    }
    arguments = [json.dumps(message) if argument == "{{$}}" else argument for argument in container["args"]]
    return [*container["command"], *arguments]


def test_a_step_of_the_compiled_pipeline_runs_in_it(compiled: Compile, store: Path) -> None:
    pipeline = compiled(f"kubeflow.image={IMAGE}").pipeline_spec
    done = run_in_image(*example_gen(pipeline, STEP), mounts={store: "/minio"})

    assert done.returncode == 0, done.stdout + done.stderr
    here = store / STEP.removeprefix("minio://")
    answer = json.loads((here / "output_metadata.json").read_text())
    (examples,) = answer["artifacts"]["examples"]["artifacts"]
    assert examples["uri"] == f"{STEP}/examples"
    assert sorted(json.loads(examples["metadata"]["split_names"])) == ["test", "train", "validation"]
    count = {
        split: sum(
            sum(1 for _ in tf.data.TFRecordDataset(str(file)))
            for file in (here / "examples" / f"Split-{split}").iterdir()
        )
        for split in ("train", "validation", "test")
    }
    assert count["train"] + count["validation"] == TINY_TRAIN
    assert count["test"] == TINY_TEST


def test_a_step_on_damaged_data_ends_with_the_reason(compiled: Compile, store: Path) -> None:
    labels = store / "mlpipeline" / "data" / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-3])
    pipeline = compiled(f"kubeflow.image={IMAGE}").pipeline_spec
    done = run_in_image(*example_gen(pipeline, STEP), mounts={store: "/minio"})

    assert done.returncode == 1
    assert "train-labels-idx1-ubyte" in done.stderr.splitlines()[-1]
    assert not (store / STEP.removeprefix("minio://") / "output_metadata.json").exists()
