"""What a real Kubeflow Pipelines 2.16.1 (and its source of August 2026) answered, in reduced copies."""

from __future__ import annotations

import copy
import json
import types
from pathlib import Path
from typing import Any

import kfp_server_api
import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from kubeflow import entrypoint, submit
from kubeflow.api import Api
from kubeflow.cli import watch

RECORDED = Path(__file__).parent / "recorded"
STEPS = sorted(path.name for path in RECORDED.glob("step-*.json"))


def run(name: str) -> submit.RunState:
    """A recorded answer to "get run", read as the client reads it."""
    answer = types.SimpleNamespace(data=(RECORDED / f"run-{name}.json").read_text())
    return submit.run_state(kfp_server_api.ApiClient().deserialize(answer, "V2beta1Run"))


def states(name: str) -> dict[str, str]:
    return {node.name: node.state for node in run(name).nodes}


def test_nodes_after_a_failed_one_have_not_run() -> None:
    state = run("failed")
    by_name = {node.name: node for node in state.nodes}

    assert state.failed == ["IdxExampleGen"]
    assert by_name["CuratedSchema"].state == submit.CACHED
    assert by_name["Trainer"] == submit.NodeStatus("Trainer", submit.NOT_RUN, None)
    assert submit.PENDING not in states("failed").values()


def test_what_came_from_the_cache_is_told_from_what_ran() -> None:
    found = states("cached")

    assert [name for name, state in found.items() if state == submit.SUCCEEDED] == ["Pusher", "ReportGen"]
    assert set(found.values()) == {submit.SUCCEEDED, submit.CACHED}
    assert set(states("success").values()) == {submit.SUCCEEDED}


def test_a_node_whose_pod_does_not_start_waits_for_it() -> None:
    state = run("unschedulable")

    assert states("unschedulable")["Trainer"] == submit.WAITING
    assert state.without_pod == ["Trainer"]
    assert states("unschedulable")["Evaluator"] == submit.PENDING
    line = watch.why_no_pod(state.without_pod, state.run_id, Api(None, "http://kfp", None))
    assert line.startswith("Trainer: no pod for a minute")
    assert f"kubectl get workflow -n kubeflow -l pipeline/runid={state.run_id} -o jsonpath=" in line


@pytest.fixture(params=STEPS)
def step(request: pytest.FixtureRequest) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((RECORDED / request.param).read_text())
    json_format.ParseDict(recorded["executor_input"], pipeline_spec_pb2.ExecutorInput())
    return recorded


def with_schemas_as_titles(executor_input: dict[str, Any]) -> dict[str, Any]:
    """The same message as a backend without ML Metadata may send it."""
    changed = copy.deepcopy(executor_input)
    for side in ("inputs", "outputs"):
        for artifacts in changed[side]["artifacts"].values():
            for artifact in artifacts["artifacts"]:
                schema = artifact["type"].get("instanceSchema")
                if schema is not None:
                    artifact["type"] = {"schemaTitle": schema or "title: tfx.Unknown\ntype: object\n"}
    return changed


@pytest.mark.parametrize("form", [copy.deepcopy, with_schemas_as_titles])
def test_both_forms_of_a_message_come_to_the_same(step: dict[str, Any], form: Any, tmp_path: Path) -> None:
    message, inputs_spec = form(step["executor_input"]), step["inputs_spec"]

    entrypoint.with_types(message, inputs_spec)
    entrypoint.without_drivers_outputs(message)
    entrypoint.fill_parameters(message, inputs_spec, step["runtime_parameters"])
    remote = entrypoint.to_local(message, str(tmp_path))

    for name, artifacts in message["inputs"]["artifacts"].items():
        (artifact,) = artifacts["artifacts"]
        assert artifact["type"] == inputs_spec["artifacts"][name]["artifactType"]
        assert remote[artifact["uri"]].startswith("minio://mlpipeline/")
    for artifacts in message["outputs"]["artifacts"].values():
        (artifact,) = artifacts["artifacts"]
        assert artifact["type"]["instanceSchema"].startswith("title: tfx.")
    filled = {"run_train_steps", "run_model_name"}  # what the node itself does not take
    assert not filled & message["inputs"]["parameterValues"].keys()


def test_the_runs_parameters_reach_the_trainer() -> None:
    recorded = json.loads((RECORDED / "step-trainer.json").read_text())
    message = recorded["executor_input"]

    entrypoint.fill_parameters(message, recorded["inputs_spec"], recorded["runtime_parameters"])

    settings = json.loads(message["inputs"]["parameterValues"]["custom_config"])
    assert settings["overrides"] == {"train_steps": 40}


def test_a_number_that_another_client_sent_is_refused_by_name() -> None:
    recorded = json.loads((RECORDED / "step-trainer.json").read_text())
    recorded["executor_input"]["inputs"]["parameterValues"]["run_train_steps"] = 1.5

    with pytest.raises(ValueError, match=r"train_steps takes a whole number, not 1\.5"):
        entrypoint.fill_parameters(
            recorded["executor_input"], recorded["inputs_spec"], recorded["runtime_parameters"]
        )


def test_an_error_names_the_uri_and_not_the_launchers_folder() -> None:
    remote = {"/minio/b/data": "minio://b/data", "/minio/b/data/x": "minio://b/other"}

    told = entrypoint.with_remote_names("the data in /minio/b/data changed; /minio/b/data/x", remote)

    assert told == "the data in minio://b/data changed; minio://b/other"


def test_a_table_of_figures_shows_figures_alone() -> None:
    metadata = {"accuracy": 0.99, "tfx_version": "1.21.0", "none": None}
    output = {"artifacts": {n: {"artifacts": [{"metadata": dict(metadata)}]} for n in ("metrics", "model")}}
    title = f"title: {entrypoint.CLASSES['system.Metrics']}\ntype: object\n"
    inputs = {
        "outputs": {
            "artifacts": {
                "metrics": {"artifacts": [{"type": {"instanceSchema": title}}]},
                "model": {"artifacts": [{"type": {"instanceSchema": "title: tfx.Model\n"}}]},
            }
        }
    }

    entrypoint.to_remote(output, {}, entrypoint.metrics_outputs(inputs))

    kept = {name: artifacts["artifacts"][0]["metadata"] for name, artifacts in output["artifacts"].items()}
    assert kept == {
        "metrics": {"accuracy": 0.99},
        "model": {"accuracy": 0.99, "tfx_version": "1.21.0"},
    }
