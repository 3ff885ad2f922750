"""A schedule whose runs look whether the data changed: the node, the file with it, and the command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from components.image_example_gen.sources import choose
from kubeflow import data_changes, fingerprint, lint, spec
from kubeflow.compile import Compiled, compile_pipeline
from kubeflow.emulator import run as emulator
from kubeflow.settings import load
from kubeflow.spec import File
from pipeline.cli.main import main
from tests.unit.kubeflow import kfp_server
from tests.unit.kubeflow.conftest import REPOSITORY, Compile
from tests.unit.kubeflow.emulator.test_run import Silent

DATA = "minio://mlpipeline/data/mnist"
NODE, READER = "DataFingerprint", "ImageExampleGen"


@pytest.fixture(scope="module")
def example(compiled: Compile) -> Compiled:
    return compiled("kubeflow.node.retries=1", file=REPOSITORY / "kubeflow" / "configs" / "example.toml")


@pytest.fixture
def file(example: Compiled) -> File:
    return spec.read(example.to_yaml())


def message(folder: Path, answer: Path) -> dict[str, Any]:
    """What the launcher hands to the step."""
    return {
        "inputs": {
            "artifacts": {"dataset": {"artifacts": [{"uri": str(folder)}]}},
            "parameterValues": {"num_classes": 0.0, "options": "{}", "source": ""},
        },
        "outputs": {"parameters": {"fingerprint": {"outputFile": str(answer)}}},
    }


def test_the_step_answers_with_what_image_example_gen_checks(made_dir: Path, tmp_path: Path) -> None:
    answer = tmp_path / "outputs" / "fingerprint"

    found = fingerprint.run_step(message(made_dir, answer), "/")

    assert answer.read_text() == found == choose(made_dir).inspect().fingerprint


@pytest.mark.slow
def test_data_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kubeflow.fingerprint", json.dumps(message(tmp_path, tmp_path / "answer"))],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no data set is recognised here" in done.stderr


@pytest.mark.slow
def test_the_node_stands_before_the_reader_and_is_like_its_pod(file: File) -> None:
    made = data_changes.with_fingerprint_node(file)

    assert lint.check(made) == []
    assert spec.read(made.to_yaml()).pipeline == made.pipeline
    order = made.order()
    assert order.index("Images") < order.index(NODE) < order.index(READER)
    assert made.tasks[READER]["inputs"]["parameters"]["fingerprint"] == {
        "taskOutputParameter": {"producerTask": NODE, "outputParameterKey": "fingerprint"}
    }
    assert "cachingOptions" not in made.tasks[NODE]
    assert made.tasks[NODE]["retryPolicy"] == made.tasks[READER]["retryPolicy"]
    assert made.pod(NODE) == made.pod(READER)
    container = made.executor(NODE)["container"]
    assert container["image"] == made.executor(READER)["container"]["image"]
    assert "data_fingerprint" in file.parameters, "the file itself stays as it was"
    assert "data_fingerprint" not in made.parameters
    assert NODE not in file.tasks


@pytest.mark.slow
def test_a_pipeline_without_a_reader_is_refused(file: File) -> None:
    del file.tasks[READER]
    with pytest.raises(spec.SpecError, match="has no ImageExampleGen"):
        data_changes.with_fingerprint_node(file)


@pytest.mark.slow
def test_the_command_sends_the_file_with_the_node(example: Compiled, tmp_path: Path) -> None:
    path = tmp_path / "mnist.yaml"
    path.write_text(example.to_yaml())
    with kfp_server.running() as server:
        for command, kept in (
            (("schedule", "--every", "1h"), server.recurring),
            (("submit",), server.runs),
        ):

            def start(*more: str, command: tuple[str, ...] = command) -> Any:
                words = [*command, str(path), "--host", server.url, "--when-data-changes"]
                return CliRunner().invoke(main, [*words, *more])

            done = start()
            assert done.exit_code == 0, done.output
            (sent,) = kept.values()
            assert NODE in sent["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
            assert "data_fingerprint" in start("--param", "data_fingerprint=1").stderr
            assert "--no-cache leaves it out" in start("--no-cache").stderr
            assert len(kept) == 1
    assert NODE not in yaml.safe_dump(list(yaml.safe_load_all(path.read_text())))


def cut_to_the_reader() -> File:
    """The compiled pipeline up to ImageExampleGen, with the node before it."""
    config, kubeflow = load(None, ["kubeflow.node.retries=0", "data.size=8x8", "data.num_classes=10"])
    file = spec.read(compile_pipeline(config, kubeflow).to_yaml())
    for task in set(file.tasks) - {"Images", READER}:
        del file.tasks[task]
    return data_changes.with_fingerprint_node(file)


def states(file: File, options: emulator.Options, data: Path) -> list[str]:
    options.objects().put(data, DATA)
    done = emulator.run(file, emulator.parameter_values(file, {}), options, Silent())
    assert done.succeeded, done.tasks
    return [done.tasks[node].state for node in (NODE, READER)]


@pytest.mark.slow
def test_with_the_same_data_nothing_runs_and_with_others_everything(made_dir: Path, tmp_path: Path) -> None:
    file = cut_to_the_reader()
    options = emulator.Options(tmp_path / "store", file.pipeline_root)

    assert states(file, options, made_dir) == ["done", "done"]
    assert states(file, options, made_dir) == ["done", "cached"]
    other = tmp_path / "other"
    shutil.copytree(made_dir, other)
    labels = other / "train-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1] = (content[-1] + 1) % 10
    labels.write_bytes(content)
    assert states(file, options, other) == ["done", "done"]
    assert states(file, options, made_dir) == ["done", "cached"], (
        "what was made of the first is still known"
    )


@pytest.mark.slow
def test_a_backend_without_ml_metadata_does_the_same(made_dir: Path, tmp_path: Path) -> None:
    file = cut_to_the_reader()
    options = emulator.Options(tmp_path, file.pipeline_root, native_metadata=True)

    assert states(file, options, made_dir) == ["done", "done"]
    assert states(file, options, made_dir) == ["done", "cached"]
