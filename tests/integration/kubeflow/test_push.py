"""A, B, A through BaselineModel and Pusher of the compiled file, each over what is there by then.

The nodes before them are importers here, whose artifacts say what Trainer and judges would have said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubeflow.compile import compile_pipeline
from kubeflow.emulator import run as emulator
from kubeflow.settings import load
from kubeflow.spec import File
from tests.unit.components.training import training
from tests.unit.kubeflow.conftest import REPOSITORY
from tests.unit.kubeflow.emulator.test_run import Silent

BUCKET = "minio://mlpipeline"
JUDGES = ("DataGate", "Evaluator", "ServingValidator")
GIVEN = {"Trainer": ("model", {})} | dict.fromkeys(JUDGES, ("blessing", {"blessed": 1}))


def imported(spec: dict[str, Any], task: str, output: str, uri: str, metadata: dict[str, Any]) -> None:
    """Put an importer in place of a node."""
    body, component = spec["root"]["dag"]["tasks"][task], spec["components"][task]
    made = component["outputDefinitions"]["artifacts"][output]
    component["outputDefinitions"] = {"artifacts": {output: {"artifactType": made["artifactType"]}}}
    component.pop("inputDefinitions", None)
    spec["deploymentSpec"]["executors"][component["executorLabel"]] = {
        "importer": {
            "artifactUri": {"constant": uri},
            "typeSchema": made["artifactType"],
            "metadata": metadata,
        }
    }
    for key in ("inputs", "dependentTasks", "retryPolicy", "cachingOptions"):
        body.pop(key, None)


@pytest.fixture(scope="module")
def spec() -> tuple[dict[str, Any], dict[str, Any]]:
    example = REPOSITORY / "kubeflow" / "configs" / "example.toml"
    made = compile_pipeline(*load(example, ["kubeflow.node.retries=0"]))
    kept = (*GIVEN, "BaselineModel", "Pusher")
    tasks = made.pipeline_spec["root"]["dag"]["tasks"]
    made.pipeline_spec["root"]["dag"]["tasks"] = {name: tasks[name] for name in kept}
    # An importer has one output: what tells of the training is all in that of DataGate.
    told = tasks["Pusher"]["inputs"]["artifacts"]
    told["evaluation"] = told["data_blessing"]
    return made.pipeline_spec, made.platform_spec


def push(spec: tuple[dict[str, Any], dict[str, Any]], store: Path, model: str) -> emulator.Run:
    """A run whose Trainer gave the model of that name."""
    pipeline, platform = spec
    options = emulator.Options(store, pipeline_root=f"{BUCKET}/root")
    source = store / "sources" / model
    source.mkdir(parents=True, exist_ok=True)
    (source / "saved_model.pb").write_text(model)
    options.objects().put(source, f"{BUCKET}/{model}/Format-Serving")
    for (artifact,) in training(store / "training").values():
        options.objects().put(Path(artifact.uri), f"{BUCKET}/judged")
    for task, (output, metadata) in GIVEN.items():
        uri = f"{BUCKET}/{model if task == 'Trainer' else 'judged'}"
        imported(pipeline, task, output, uri, metadata)
    file = File(pipeline, platform)
    return emulator.run(file, emulator.parameter_values(file, {}), options, Silent())


@pytest.mark.slow
def test_each_run_compares_with_what_is_in_production_and_pushes_once(
    spec: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    models = tmp_path / "volumes" / "mnist-models" / "mnist"

    def served() -> list[str]:
        ordered = sorted((path for path in models.iterdir()), key=lambda path: int(path.name))
        return [(path / "saved_model.pb").read_text() for path in ordered]

    for model, expected in (("A", "A"), ("B", "AB"), ("A", "ABA")):
        done = push(spec, tmp_path, model)
        assert done.succeeded, done.tasks
        assert {done.tasks[node].state for node in ("BaselineModel", "Pusher")} == {emulator.DONE}
        assert served() == list(expected)
    modes = {oct(path.stat().st_mode & 0o777) for path in models.rglob("saved_model.pb")}
    assert modes == {"0o664"}
