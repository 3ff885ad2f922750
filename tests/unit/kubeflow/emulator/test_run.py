"""The emulator does what driver, launcher and Argo do, shown with containers of one shell command."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeflow import spec as compiled
from kubeflow.emulator import run as emulator
from kubeflow.emulator.backend_metadata import MetadataError, to_mlmd
from kubeflow.emulator.object_store import ObjectStore, StoreError
from pipeline.errors import UserError

MNIST = str(Path(sys.executable).with_name("mnist"))
ROOT = "minio://bucket/root"
ANY = {"artifactType": {"instanceSchema": "title: tests.Any\ntype: object\n"}}

Spec = dict[str, Any]


class Silent:
    """Hears everything and says nothing."""

    def planned(self, nodes: list[str]) -> None: ...
    def started(self, node: str) -> None: ...
    def finished(self, node: str, state: str, seconds: float) -> None: ...


def spec(**tasks: Spec) -> Spec:
    """A pipeline spec of tasks, each made by `task` or `importer`."""
    made: Spec = {
        "pipelineInfo": {"name": "shell"},
        "schemaVersion": "2.1.0",
        "defaultPipelineRoot": ROOT,
        "components": {},
        "deploymentSpec": {"executors": {}},
        "root": {"dag": {"tasks": {}}, "inputDefinitions": {"parameters": {}}},
    }
    for name, body in tasks.items():
        made["components"][name] = body["component"] | {"executorLabel": f"{name}_executor"}
        made["deploymentSpec"]["executors"][f"{name}_executor"] = body["executor"]
        made["root"]["dag"]["tasks"][name] = body["task"] | {
            "taskInfo": {"name": name},
            "componentRef": {"name": name},
        }
    return made


def task(
    script: str,
    *,
    needs: dict[str, tuple[str, str]] | None = None,
    outputs: tuple[str, ...] = (),
    parameters: dict[str, Any] | None = None,
    **more: Any,
) -> Spec:
    """A container that runs a shell script; `$1` is its executor input."""
    needs = needs or {}
    component: Spec = {
        "inputDefinitions": {
            "artifacts": dict.fromkeys(needs, ANY),
            "parameters": {name: {"parameterType": "STRING"} for name in parameters or {}},
        },
        "outputDefinitions": {"artifacts": dict.fromkeys(outputs, ANY)},
    }
    return {
        "component": component,
        "executor": {"container": {"image": "x", "command": ["sh", "-c", script, "sh"], "args": ["{{$}}"]}},
        "task": {
            "dependentTasks": sorted({producer for producer, _ in needs.values()}),
            "inputs": {
                "artifacts": {
                    name: {"taskOutputArtifact": {"producerTask": producer, "outputArtifactKey": key}}
                    for name, (producer, key) in needs.items()
                },
                "parameters": {
                    name: {"runtimeValue": {"constant": value}}
                    for name, value in (parameters or {}).items()
                },
            },
        }
        | more,
    }


def importer(uri: str) -> Spec:
    return {
        "component": {"outputDefinitions": {"artifacts": {"result": ANY}}},
        "executor": {
            "importer": {"artifactUri": {"constant": uri}, "typeSchema": ANY["artifactType"]},
        },
        "task": {},
    }


def run(pipeline: Spec, store: Path, platform: Spec | None = None, **options: Any) -> emulator.Run:
    file = compiled.read(yaml.safe_dump_all([pipeline] + ([platform] if platform else [])))
    values = emulator.parameter_values(file, {})
    options = {"pipeline_root": ROOT} | options
    return emulator.run(file, values, emulator.Options(store, **options), Silent())


# A step that answers with metadata for its output `o`.
ANSWER = """
python -c '
import json, os, pathlib, sys
message = json.loads(sys.argv[1])
output = message["outputs"]["artifacts"]["o"]["artifacts"][0]
local = pathlib.Path(os.environ["LAUNCHER_ROOT"], output["uri"].replace("://", "/"))
assert not local.exists() and local.parent.is_dir()
(local / "empty").mkdir(parents=True)
(local / "file").write_text("contents")
answer = {"artifacts": {"o": {"artifacts": [{"uri": output["uri"], "metadata": METADATA}]}}}
pathlib.Path(message["outputs"]["outputFile"]).write_text(json.dumps(answer))
' "$1"
"""


def answering(metadata: str, **more: Any) -> Spec:
    return task(ANSWER.replace("METADATA", metadata), outputs=("o",), **more)


def test_what_a_step_wrote_reaches_the_next_one_with_its_type_blanked(tmp_path: Path) -> None:
    look = f'printf "%s" "$1" > {tmp_path}/seen; cd "$LAUNCHER_ROOT"/minio/bucket/root/shell; '
    look += f"cat */a/*/o/file > {tmp_path}/file"
    done = run(
        spec(
            a=answering('{"size": 3, "name": "x", "flag": True, "list": [1]}'),
            b=task(look, needs={"i": ("a", "o")}),
        ),
        tmp_path / "store",
    )
    assert done.succeeded, done.tasks
    (artifact,) = json.loads((tmp_path / "seen").read_text())["inputs"]["artifacts"]["i"]["artifacts"]
    assert artifact["type"] == {"instanceSchema": ""}
    assert artifact["name"].isdigit()
    metadata = artifact["metadata"]
    assert metadata.pop("store_session_info")
    assert metadata == {"size": 3, "name": "x", "flag": 1, "list": {"list": [1]}, "display_name": "o"}
    assert (tmp_path / "file").read_text() == "contents"
    assert not list((tmp_path / "store" / "objects").rglob("empty"))  # an object store has no folders
    assert not list((tmp_path / "store" / "pods").rglob("file"))


def test_a_backend_without_ml_metadata_hands_on_the_whole_schema(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    done = run(
        spec(
            data=importer("minio://bucket/data"),
            a=answering("{}", needs={"d": ("data", "result")}),
            b=task(f'printf "%s" "$1" > {seen}', needs={"i": ("a", "o"), "d": ("data", "result")}),
        ),
        tmp_path / "store",
        native_metadata=True,
    )
    assert done.succeeded, done.tasks
    for artifacts in json.loads(seen.read_text())["inputs"]["artifacts"].values():
        (artifact,) = artifacts["artifacts"]
        assert artifact["type"] == {"schemaTitle": ANY["artifactType"]["instanceSchema"]}
        assert str(uuid.UUID(artifact["name"])) == artifact["name"]
        assert "instance_schema" not in artifact["metadata"]


def test_the_driver_adds_an_output_for_the_log(tmp_path: Path) -> None:
    done = run(spec(a=task('echo "$1"')), tmp_path)
    assert done.succeeded
    (log,) = tmp_path.rglob("executor-logs-0")
    outputs = json.loads(log.read_text())["outputs"]["artifacts"]
    assert outputs["executor-logs"]["artifacts"][0]["type"] == {"schemaTitle": "system.Artifact"}
    assert outputs["executor-logs"]["artifacts"][0]["uri"].endswith("/executor-logs-0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "said"),
    [
        (ANSWER.replace("METADATA", '{"version": None}'), "NullValue"),
        (
            ANSWER.replace("METADATA", "{}").replace('{"artifacts": {"o"', '{"artefacts": {"o"'),
            "unmarshall",
        ),
        (ANSWER.replace("METADATA", "{}").replace('"uri": output["uri"]', '"uri": "s3://b/x"'), "prefix"),
        ("echo the last words; exit 7", "exit status 7\nthe last words"),
    ],
)
def test_what_the_launcher_does_not_take_fails_the_step(script: str, said: str, tmp_path: Path) -> None:
    done = run(spec(a=task(script, outputs=("o",)), b=task("true", dependentTasks=["a"])), tmp_path)
    assert done.tasks["a"].state == emulator.FAILED
    assert said in done.tasks["a"].message
    assert done.tasks["b"].state == emulator.SKIPPED
    assert list(tmp_path.rglob("executor-logs-0")), "the log of a failed step is kept"


def test_a_local_uri_in_the_answer_skips_the_upload_and_fails_the_next_step(tmp_path: Path) -> None:
    local = ANSWER.replace("METADATA", "{}").replace('"uri": output["uri"]', '"uri": str(local)')
    done = run(spec(a=task(local, outputs=("o",)), b=task("true", needs={"i": ("a", "o")})), tmp_path)
    assert done.tasks["a"].state == emulator.DONE
    assert "Skipping uploading" in (tmp_path / "warnings.log").read_text()
    assert done.tasks["b"].state == emulator.FAILED
    assert "failed to parse bucketConfig" in done.tasks["b"].message


def test_a_root_that_is_not_sent_is_the_servers_own(tmp_path: Path) -> None:
    pipeline = spec(a=answering("{}"))
    assert pipeline["defaultPipelineRoot"] == ROOT  # which no part of a server reads

    assert run(pipeline, tmp_path, pipeline_root="").succeeded

    assert list((tmp_path / "objects/minio/mlpipeline/v2/artifacts/shell").rglob("file"))
    with pytest.raises(UserError, match="in no object store"):
        run(pipeline, tmp_path, pipeline_root="/tmp/x")


@pytest.mark.parametrize(("uri", "reached"), [("minio://other/data", False), ("s3://other/data", True)])
def test_what_lies_in_another_bucket_of_minio_is_not_downloaded(
    uri: str, reached: bool, tmp_path: Path
) -> None:
    done = run(spec(data=importer(uri), a=task("true", needs={"i": ("data", "result")})), tmp_path)

    assert done.succeeded is reached
    assert reached or 'no driver registered for "minio"' in done.tasks["a"].message


def test_a_step_begins_with_the_umask_of_argos_runtime(tmp_path: Path) -> None:
    assert run(spec(a=task("umask")), tmp_path).succeeded
    (log,) = tmp_path.rglob("executor-logs-0")
    assert int(log.read_text(), 8) == 0


def test_a_preempted_pod_ends_with_all_its_processes_and_is_started_again(tmp_path: Path) -> None:
    """A first attempt ends its own process group, as Argo does with a pod's."""
    policy = {"maxRetryCount": 1, "backoffMaxDuration": "3600s"}
    script = f"test -e {tmp_path}/begun && exit 0; touch {tmp_path}/begun; kill -TERM -$$; sleep 20"
    done = run(spec(a=task(script, retryPolicy=policy)), tmp_path / "store")

    assert (done.tasks["a"].state, done.tasks["a"].attempts) == (emulator.DONE, 2)


def test_retries_need_a_longest_duration(tmp_path: Path) -> None:
    count = f'echo x >> {tmp_path}/count; test "$(wc -l < {tmp_path}/count)" = 3'
    policy = {"maxRetryCount": 3, "backoffDuration": "30s", "backoffFactor": 2.0}
    done = run(spec(a=task(count, retryPolicy=policy | {"backoffMaxDuration": "3600s"})), tmp_path / "s")
    assert (done.tasks["a"].state, done.tasks["a"].attempts) == (emulator.DONE, 3)
    assert len(list((tmp_path / "s").rglob("executor-logs-*"))) == 3
    (tmp_path / "count").unlink()
    done = run(spec(a=task(count, retryPolicy=policy)), tmp_path / "t")
    assert (done.tasks["a"].state, done.tasks["a"].attempts) == (emulator.FAILED, 1)


CACHED = {"cachingOptions": {"enableCache": True}}


@pytest.mark.slow
def test_the_cache_knows_parameters_and_inputs_but_no_contents(tmp_path: Path) -> None:
    def states(uri: str = "minio://bucket/data", value: str = "1", **options: Any) -> list[str]:
        pipeline = spec(
            data=importer(uri),
            a=answering("{}", needs={"i": ("data", "result")}, parameters={"p": value}, **CACHED),
            b=task("true", needs={"i": ("a", "o")}, **CACHED),
            always=task("true"),
        )
        done = run(pipeline, tmp_path / "store", **options)
        return [done.tasks[name].state for name in ("a", "b", "always")]

    (tmp_path / "data").write_text("first")
    store = ObjectStore(tmp_path / "store" / "objects")
    store.put(tmp_path / "data", "minio://bucket/data")
    assert states() == ["done", "done", "done"]
    assert states() == ["cached", "cached", "done"]
    (tmp_path / "data").write_text("second")
    store.put(tmp_path / "data", "minio://bucket/data")
    assert states() == ["cached", "cached", "done"], "a stale hit, as on the cluster"
    assert states(value="2") == ["done", "done", "done"]
    assert states(uri="minio://bucket/other") == ["done", "done", "done"]
    assert states(cache=False) == ["done", "done", "done"]


def test_a_failed_task_runs_again_and_what_succeeded_comes_from_the_cache(tmp_path: Path) -> None:
    pipeline = spec(
        a=answering("{}", **CACHED),
        b=task(f"test -e {tmp_path}/fixed", needs={"i": ("a", "o")}, **CACHED),
    )
    assert [t.state for t in run(pipeline, tmp_path / "s").tasks.values()] == ["done", "failed"]
    (tmp_path / "fixed").touch()
    assert [t.state for t in run(pipeline, tmp_path / "s").tasks.values()] == ["cached", "done"]


def test_a_volume_is_a_folder_below_the_store(tmp_path: Path) -> None:
    platform = {
        "platforms": {
            "kubernetes": {
                "deploymentSpec": {
                    "executors": {
                        "a_executor": {"pvcMount": [{"constant": "claim", "mountPath": "/models"}]}
                    }
                }
            }
        }
    }
    script = 'python -c \'import json, sys; print(json.loads(sys.argv[1])["inputs"])\' "$1"'
    values = {"p": '{"base": "/models/x", "other": "/my/models"}'}
    done = run(spec(a=task(script, parameters=values)), tmp_path, platform)
    assert done.succeeded, done.tasks
    (log,) = tmp_path.rglob("executor-logs-0")
    assert f"{tmp_path}/volumes/claim/x" in log.read_text()
    assert "/my/models" in log.read_text()


def test_the_launcher_fills_in_placeholders(tmp_path: Path) -> None:
    made = task("true", parameters={"p": "value"})
    container = made["executor"]["container"]
    container["command"] = ["echo"]
    container["args"] = ["{{$.inputs.parameters['p']}}"]
    assert run(spec(a=made), tmp_path).succeeded
    (log,) = tmp_path.rglob("executor-logs-0")
    assert log.read_text() == "value\n"


def test_a_listing_in_an_object_store_goes_by_prefix(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    store = ObjectStore(tmp_path / "objects")
    for key in ("model/a", "model/b/c", "model-2/d", "other"):
        store.put(tmp_path / "f", f"minio://bucket/{key}")
    store.get("minio://bucket/model", tmp_path / "down" / "model")
    found = {str(p.relative_to(tmp_path / "down")) for p in (tmp_path / "down").rglob("*") if p.is_file()}
    assert found == {"model/a", "model/b/c", "model-2/d"}
    with pytest.raises(StoreError, match="unrecognized"):
        store.path("/minio/bucket/model")


def test_null_is_no_metadata() -> None:
    with pytest.raises(MetadataError, match="NullValue"):
        to_mlmd(None)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s.update(schemaVersion="2.0.0"), "has schema 2.0.0"),
        (lambda s: s.update(surprise=1), "surprise"),
        (lambda s: s["root"]["dag"]["tasks"]["a"].update(dependentTasks=["z"]), "z, which does not exist"),
        (lambda s: s["root"]["dag"]["tasks"]["a"].update(dependentTasks=["a"]), "wait for each other"),
        (
            lambda s: s["deploymentSpec"]["executors"].update(a_executor={"resolver": {}}),
            "no resolver nodes",
        ),
        (
            lambda s: s["root"]["dag"]["tasks"]["a"].update(triggerPolicy={"condition": "true"}),
            "a runs on a condition",
        ),
        (
            lambda s: s["root"]["inputDefinitions"]["parameters"].update(p={"parameterType": "STRING"}),
            "needs a value for p",
        ),
    ],
)
def test_what_the_backend_refuses_is_refused(edit: Any, said: str, tmp_path: Path) -> None:
    pipeline = spec(a=task("true"))
    edit(pipeline)
    with pytest.raises(UserError, match=said):
        run(pipeline, tmp_path)


def test_parameters_are_typed_and_known() -> None:
    pipeline = spec()
    pipeline["root"]["inputDefinitions"]["parameters"] = {
        "steps": {"parameterType": "NUMBER_INTEGER", "defaultValue": 5},
        "name": {"parameterType": "STRING", "defaultValue": "x"},
    }
    file = compiled.File(pipeline, {})
    assert emulator.parameter_values(file, {"name": "7"}) == {"name": "7", "steps": 5}
    # A client of another kind sends what it likes; every number of JSON is a double there.
    assert emulator.parameter_values(file, {"steps": 1.5}) == {"name": "x", "steps": 1.5}
    with pytest.raises(UserError, match="'many' is no NUMBER_INTEGER"):
        emulator.parameter_values(file, {"steps": "many"})
    with pytest.raises(UserError, match="no parameter 'stops': did you mean steps"):
        emulator.parameter_values(file, {"stops": 1})


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MNIST, "kubeflow", "emulate", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_command_says_which_task_failed(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(
        yaml.safe_dump(spec(a=task("echo no luck; exit 3"), b=task("true", dependentTasks=["a"])))
    )
    done = command(file, "--store", tmp_path / "store")
    assert done.returncode == 1
    message, where = done.stderr.splitlines()[-2:]
    assert message == "no luck"
    folder = Path(where.partition(": ")[2].removesuffix("/NODE"))
    assert list((folder / "a").rglob("executor-logs-0"))
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["a", "failed"], ["b", "skipped"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--param", "p"],
        ["--param", "p=1"],
        ["--put", "minio://b/x=/does/not/exist"],
        ["--put", f"minio://b/here={__file__}", "--put", "minio://b/x"],
        ["--put", "data=/tmp"],
        ["--pipeline-root", "/tmp/x"],
    ],
)
def test_bad_input_of_the_command_is_one_line(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(yaml.safe_dump(spec(a=task("true"))))
    done = command(file, "--store", tmp_path / "store", *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("mnist: ")
    assert not (tmp_path / "store").exists()
