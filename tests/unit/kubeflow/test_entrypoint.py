"""The adapter between launcher and executor, without either."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeflow import bindings, entrypoint

BLANK = {"instanceSchema": ""}
SCHEMA = "title: tfx.Schema\ntype: object\n"
EXAMPLES = {"instanceSchema": "title: tfx.Examples\n"}


def message(root: str = "minio://bucket/root") -> dict[str, Any]:
    return {
        "inputs": {
            "artifacts": {
                "examples": {"artifacts": [{"name": "7", "uri": f"{root}/examples", "type": BLANK}]}
            },
            "parameterValues": {"shards": 2.0},
        },
        "outputs": {
            "artifacts": {
                "schema": {"artifacts": [{"uri": f"{root}/schema", "type": {"instanceSchema": SCHEMA}}]},
                "executor-logs": {
                    "artifacts": [
                        {"uri": f"{root}/executor-logs-0", "type": {"schemaTitle": "system.Artifact"}}
                    ]
                },
            },
            "outputFile": "/minio/bucket/root/output_metadata.json",
        },
    }


def test_inputs_get_the_types_that_the_component_declares() -> None:
    adapted = message()
    entrypoint.with_types(adapted, {"artifacts": {"examples": {"artifactType": EXAMPLES}}})
    assert adapted["inputs"]["artifacts"]["examples"]["artifacts"][0]["type"] == EXAMPLES


def test_a_schema_that_arrives_as_a_title_is_a_schema() -> None:
    adapted = message()
    adapted["inputs"]["artifacts"]["examples"]["artifacts"][0]["type"] = {
        "schemaTitle": "title: tfx.Examples\n"
    }
    adapted["outputs"]["artifacts"]["schema"]["artifacts"][0]["type"] = {"schemaTitle": SCHEMA}
    entrypoint.with_types(adapted, {"artifacts": {"examples": {"artifactType": EXAMPLES}}})
    assert adapted["inputs"]["artifacts"]["examples"]["artifacts"][0]["type"] == EXAMPLES
    assert adapted["outputs"]["artifacts"]["schema"]["artifacts"][0]["type"] == {"instanceSchema": SCHEMA}


@pytest.mark.parametrize("key", ["instanceSchema", "schemaTitle"])
def test_kubeflow_s_own_types_get_their_classes(key: str) -> None:
    adapted = message()
    adapted["outputs"]["artifacts"]["schema"]["artifacts"][0]["type"] = {
        key: "title: system.Metrics\ntype: object\n"
    }
    entrypoint.with_types(adapted, {})
    (output,) = adapted["outputs"]["artifacts"]["schema"]["artifacts"]
    assert output["type"] == {"instanceSchema": "title: components.Metrics\ntype: object\n"}


def test_the_drivers_output_goes_and_nothing_else() -> None:
    adapted = message()
    entrypoint.without_drivers_outputs(adapted)
    assert list(adapted["outputs"]["artifacts"]) == ["schema"]


@pytest.mark.parametrize(("scheme", "folder"), [("minio", "minio"), ("s3", "s3"), ("gs", "gcs")])
def test_remote_uris_become_the_launchers_folders(scheme: str, folder: str, tmp_path: Path) -> None:
    adapted = message(f"{scheme}://bucket/root")
    remote = entrypoint.to_local(adapted, str(tmp_path))
    uri = adapted["outputs"]["artifacts"]["schema"]["artifacts"][0]["uri"]
    assert uri == f"{tmp_path}/{folder}/bucket/root/schema"
    assert Path(uri).is_dir()  # the launcher makes its parent alone
    assert remote[uri] == f"{scheme}://bucket/root/schema"
    assert not Path(adapted["inputs"]["artifacts"]["examples"]["artifacts"][0]["uri"]).exists()


def test_in_a_pod_the_folders_are_at_the_root() -> None:
    assert entrypoint.local_path("minio://bucket/x", "/") == "/minio/bucket/x"
    assert entrypoint.local_path("/serving/mnist", "/") == "/serving/mnist"


def test_answers_name_remote_uris_and_no_nulls() -> None:
    answer = {
        "artifacts": {
            "model": {
                "artifacts": [
                    {
                        "uri": "/minio/b/model",
                        "metadata": {
                            "current_model": "/minio/b/model",
                            "pushed_destination": "/minio/b/model/17",
                            "similar": "/minio/b/models",
                            "version": None,
                            "accuracy": 0.5,
                            "elsewhere": "/serving/mnist/17",
                        },
                    }
                ]
            }
        }
    }
    entrypoint.to_remote(answer, {"/minio/b/model": "minio://b/model"})
    assert answer["artifacts"]["model"]["artifacts"][0] == {
        "uri": "minio://b/model",
        "metadata": {
            "current_model": "minio://b/model",
            "pushed_destination": "minio://b/model/17",
            "similar": "/minio/b/models",
            "accuracy": 0.5,
            "elsewhere": "/serving/mnist/17",
        },
    }


names = st.text("abcxyz-_", min_size=1, max_size=8)


@given(scheme=st.sampled_from(list(entrypoint.FOLDERS)), parts=st.lists(names, min_size=1, max_size=4))
def test_to_remote_undoes_to_local(scheme: str, parts: list[str]) -> None:
    uri = scheme + "/".join(parts)
    incoming = {"inputs": {"artifacts": {"x": {"artifacts": [{"uri": uri}]}}}}
    remote = entrypoint.to_local(incoming, "/root")
    answer = copy.deepcopy(incoming["inputs"])
    entrypoint.to_remote(answer, remote)
    assert answer["artifacts"]["x"]["artifacts"][0]["uri"] == uri


def test_parameters_of_the_run_go_into_the_nodes_own() -> None:
    bound = [
        {
            "input": "custom_config",
            "path": ["overrides", "steps"],
            "template": "{train_steps}",
            "optional": True,
        },
        {"input": "custom_config", "path": ["folder"], "template": "{push_destination}/{model_name}"},
    ]
    spec = {
        "parameters": {"shards": {"parameterType": "NUMBER_INTEGER"}}
        | {"run_train_steps": {"parameterType": "NUMBER_INTEGER"}}
    }
    adapted = {
        "inputs": {
            "parameterValues": {
                "shards": 2.0,
                "run_fn": "trainer.train.run_fn",
                "custom_config": '{"overrides": {}}',
                "run_train_steps": 60.0,
                "run_push_destination": "/serving",
                "run_model_name": "mnist",
            }
        }
    }
    entrypoint.fill_parameters(adapted, spec, bound)
    values = adapted["inputs"]["parameterValues"]
    assert set(values) == {"shards", "run_fn", "custom_config"}
    assert json.loads(values["custom_config"]) == {"overrides": {"steps": 60}, "folder": "/serving/mnist"}
    assert values["custom_config"].count("60.0") == 0


SLOW = """
import pathlib, time
from tfx.dsl.components.base.base_executor import BaseExecutor

class Executor(BaseExecutor):
    def Do(self, input_dict, output_dict, exec_properties):
        pathlib.Path(output_dict["schema"][0].uri, "half").write_text("half")
        print("WORKING", flush=True)
        if exec_properties.get("fail"):
            raise ValueError("the label is 42")
        time.sleep(60)
"""


def step(tmp_path: Path, fail: bool) -> subprocess.Popen[str]:
    """Start a step whose executor writes half of an output and then fails or waits."""
    (tmp_path / "slow.py").write_text(SLOW)
    incoming = message()
    incoming["inputs"] = {"parameterValues": {"fail": float(fail)}}
    output_file = tmp_path / "minio" / "bucket" / "root" / "output_metadata.json"
    incoming["outputs"]["outputFile"] = str(output_file)
    spec = {"parameters": {"fail": {"parameterType": "NUMBER_INTEGER"}}}
    messages = ["--json_serialized_invocation_args", json.dumps(incoming)]
    messages += ["--json_serialized_inputs_spec_args", json.dumps(spec)]
    return subprocess.Popen(
        [sys.executable, "-m", "kubeflow.entrypoint", "--executor_class_path", "slow.Executor", *messages],
        env=os.environ
        | {
            "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}",
            entrypoint.ROOT_VARIABLE: str(tmp_path),
        },
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_behind(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "minio").rglob("*") if path.is_file() or path.name == "schema"]


@pytest.mark.slow
def test_a_failure_ends_with_the_executors_own_message(tmp_path: Path) -> None:
    with step(tmp_path, fail=True) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output.splitlines()[-1] == "slow.Executor failed: ValueError: the label is 42"
    assert left_behind(tmp_path) == []


@pytest.mark.slow
def test_a_terminated_step_leaves_no_half_written_output(tmp_path: Path) -> None:
    with step(tmp_path, fail=False) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "WORKING" in line:
                break
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output = process.stdout.read()
        process.wait(timeout=30)
    assert process.returncode == entrypoint.TERMINATED
    assert "terminated" in output.splitlines()[-1]
    assert time.monotonic() - begin < 20
    assert left_behind(tmp_path) == []


@pytest.mark.slow
def test_a_log_says_what_the_step_is_about_and_little_else(tmp_path: Path) -> None:
    with step(tmp_path, fail=True) as process:
        output, _ = process.communicate(timeout=120)
    for noise in ("cuda", "cuInit", "InitializeLog", "is not available", "do: inputs", "custom_properties"):
        assert noise not in output
    assert re.search(r"kubeflow.entrypoint: output \w+: minio://bucket/root/", output)
    assert len(output.partition("Traceback")[0].splitlines()) < 12, output


def test_warnings_of_a_library_are_told() -> None:
    chatter = entrypoint._Chatter()

    def told(level: int, path: str) -> bool:
        return chatter.filter(logging.LogRecord("absl", level, path, 1, "text", None, None))

    file = f"/usr/lib/{chatter.FILES[0]}"
    assert not told(logging.INFO, file)
    assert told(logging.WARNING, file)
    assert told(logging.INFO, "/usr/lib/tfx/components/trainer/executor.py")


def test_the_files_that_are_not_heard_are_there() -> None:
    site = Path(sysconfig.get_path("purelib"))
    assert [file for file in entrypoint._Chatter.FILES if not (site / file).exists()] == []


def test_the_flag_is_the_one_that_compile_writes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kubeflow.entrypoint", "--help"], capture_output=True, text=True, check=True
    )
    assert bindings.FLAG in done.stdout
