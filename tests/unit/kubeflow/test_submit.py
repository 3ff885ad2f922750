"""Submitting, scheduling and following runs, against a server that holds every call to the API's schema."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import kfp_server_api
import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from kubeflow import api, submit
from kubeflow.api import Access, connect
from kubeflow.cli.schedule import schedule as schedule_command
from kubeflow.cli.status import status
from kubeflow.cli.submit import submit as submit_command
from pipeline.cli.main import main
from tests.unit.kubeflow import kfp_server
from tests.unit.kubeflow.conftest import Compile
from tests.unit.kubeflow.kfp_server import Look, Server, step

SPEC = {
    "schemaVersion": "2.1.0",
    "sdkVersion": "tfx-1.21.0",
    "pipelineInfo": {"name": "mnist"},
    "root": {
        "inputDefinitions": {
            "parameters": {
                "data_uri": {"parameterType": "STRING"},
                "recipe": {"parameterType": "STRING", "defaultValue": "fast"},
                "train_steps": {"parameterType": "NUMBER_INTEGER", "defaultValue": 0.0},
                "accuracy": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.97},
                "report": {"parameterType": "BOOLEAN", "defaultValue": True},
                "slices": {"parameterType": "LIST", "isOptional": True},
            }
        },
        "dag": {
            "tasks": {
                "Evaluator": {
                    "taskInfo": {"name": "Evaluator"},
                    "componentRef": {"name": "Step"},
                    "dependentTasks": ["Trainer"],
                },
                "Trainer": {
                    "taskInfo": {"name": "Trainer"},
                    "componentRef": {"name": "Step"},
                    "cachingOptions": {"enableCache": True},
                    "dependentTasks": ["ExampleGen"],
                    "inputs": {
                        "artifacts": {
                            "examples": {
                                "taskOutputArtifact": {
                                    "producerTask": "ExampleGen",
                                    "outputArtifactKey": "examples",
                                }
                            }
                        }
                    },
                },
                "ExampleGen": {
                    "taskInfo": {"name": "ExampleGen"},
                    "componentRef": {"name": "Step"},
                    "cachingOptions": {"enableCache": True},
                },
            }
        },
    },
    "components": {"Step": {"executorLabel": "Step_executor"}},
    "deploymentSpec": {"executors": {"Step_executor": {"container": {"image": "mnist-tfx:latest"}}}},
}
PLATFORM = {
    "platforms": {
        "kubernetes": {
            "deploymentSpec": {"executors": {"Step_executor": {"nodeSelector": {"labels": {"gpu": "yes"}}}}}
        }
    }
}
NEEDED = ["--param", "data_uri=minio://mlpipeline/data"]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A compiled file of two documents."""
    path = tmp_path / "mnist.yaml"
    path.write_text(yaml.safe_dump_all([SPEC, PLATFORM]))
    return path


@pytest.fixture
def server() -> Iterator[Server]:
    with kfp_server.running() as running:
        yield running


def invoke(command: click.Command, *args: object) -> Result:
    path = ("kubeflow", "status") if command is status else (command.name,)
    return CliRunner().invoke(main, [*path, *(str(arg) for arg in args)])


def one_line(result: Result) -> str:
    """The error of a command that failed as it should: one line, no traceback."""
    assert isinstance(result.exception, SystemExit), result.exception
    (line,) = result.stderr.splitlines()
    return line


def test_a_run_carries_both_documents_and_typed_parameters(server: Server, package: Path) -> None:
    result = invoke(
        submit_command,
        *(package, "--host", server.url, "--run-name", "first", "--experiment", "digits"),
        *(*NEEDED, "--param", "train_steps=300", "--param", "accuracy=0.5", "--param", "report=false"),
        *("--param", 'slices=["label"]', "--pipeline-root", "s3://bucket/mnist"),
        *("--service-account", "mnist-runner"),
    )

    assert result.exit_code == 0, result.output
    ((run_id, sent),) = server.runs.items()
    assert result.stdout.splitlines() == [f"run {run_id}", f"{server.url}/#/runs/details/{run_id}"]
    assert sent["runtime_config"] == {
        "pipeline_root": "s3://bucket/mnist",
        "parameters": {
            "data_uri": "minio://mlpipeline/data",
            "train_steps": 300,
            "accuracy": 0.5,
            "report": False,
            "slices": ["label"],
        },
    }
    assert sent["display_name"] == "first"
    assert sent["service_account"] == "mnist-runner"
    assert sent["experiment_id"] == server.experiments["digits"].experiment_id
    assert sent["pipeline_spec"]["platform_spec"] == PLATFORM
    assert sent["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"].keys() == {
        "ExampleGen",
        "Trainer",
        "Evaluator",
    }


@pytest.mark.slow
def test_the_service_account_is_the_one_that_the_file_was_compiled_for(
    server: Server, package: Path, compiled: Compile
) -> None:
    package.write_text(
        compiled("kubeflow.service_account=mnist-runner", "data.uri=minio://mlpipeline/data").to_yaml()
    )

    assert invoke(submit_command, package, "--host", server.url).exit_code == 0
    assert invoke(submit_command, package, "--host", server.url, "--service-account", "ann").exit_code == 0

    assert [sent["service_account"] for sent in server.runs.values()] == ["mnist-runner", "ann"]


@pytest.mark.slow
def test_the_root_of_the_file_is_sent_because_no_server_reads_it(server: Server, package: Path) -> None:
    package.write_text(yaml.safe_dump_all([SPEC | {"defaultPipelineRoot": "minio://other/mnist"}]))
    here = ("--param", "data_uri=minio://other/data")

    assert invoke(submit_command, package, "--host", server.url, *here).exit_code == 0
    assert invoke(schedule_command, package, "--host", server.url, *here, "--every", "1d").exit_code == 0
    given = ("--pipeline-root", "s3://bucket/mnist")
    assert invoke(submit_command, package, "--host", server.url, *here, *given).exit_code == 0

    roots = [sent["runtime_config"]["pipeline_root"] for sent in server.runs.values()]
    assert roots == ["minio://other/mnist", "s3://bucket/mnist"]
    (sent,) = server.recurring.values()
    assert sent["runtime_config"]["pipeline_root"] == "minio://other/mnist"
    wrong = invoke(submit_command, package, "--host", server.url, *here, "--pipeline-root", "/var/mnist")
    assert wrong.exit_code == 2
    assert "must be minio://" in one_line(wrong)


@pytest.mark.slow
def test_data_out_of_reach_of_the_root_are_refused_before_anything_is_sent(
    server: Server, package: Path, compiled: Compile
) -> None:
    package.write_text(compiled().to_yaml())
    options = ("--host", server.url, "--param", "data_uri=minio://other/data")

    for command, more in ((submit_command, ()), (schedule_command, ("--every", "1d"))):
        result = invoke(command, package, *options, *more)

        assert result.exit_code == 2
        assert "imports from minio://other, but the pipeline root is in minio://mlpipeline" in one_line(
            result
        )
    assert server.runs == server.recurring == {}


@pytest.mark.slow
def test_an_experiment_is_made_once_and_named_like_the_pipeline(server: Server, package: Path) -> None:
    for _ in range(2):
        assert invoke(submit_command, package, "--host", server.url, *NEEDED).exit_code == 0

    assert list(server.experiments) == ["mnist"]
    assert len(server.runs) == 2
    assert server.requests.count("POST /apis/v2beta1/experiments") == 1


@pytest.mark.slow
def test_no_run_is_started_before_the_newest_one_has_cooled_down(server: Server, package: Path) -> None:
    def start(*more: str) -> Result:
        return invoke(submit_command, package, "--host", server.url, *NEEDED, *more)

    cool = ("--cool-down", "6h")
    assert start(*cool).exit_code == 0
    (first,) = server.runs
    server.made[first] -= timedelta(hours=5)
    result = start(*cool, "--wait")
    assert result.exit_code == 0
    made = server.made[first]
    assert result.stdout == f"no run: mnist has one of {made:%Y-%m-%d %H:%M} UTC, not 6h ago yet\n"
    assert start(*cool, "--experiment", "other").exit_code == 0
    assert len(server.runs) == 2
    server.made[first] -= timedelta(hours=2)
    assert start(*cool).exit_code == 0
    assert start().exit_code == 0
    assert len(server.runs) == 4
    assert "is no interval" in one_line(start("--cool-down", ""))


@pytest.mark.slow
def test_caching_is_as_compiled_unless_switched_off(server: Server, package: Path) -> None:
    invoke(submit_command, package, "--host", server.url, *NEEDED)
    invoke(submit_command, package, "--host", server.url, *NEEDED, "--no-cache")

    cached, uncached = (
        [
            task.get("cachingOptions", {}).get("enableCache", False)
            for task in sent["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"].values()
        ]
        for sent in server.runs.values()
    )
    assert sum(cached) == 2
    assert sum(uncached) == 0


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (["recip=fast"], "no parameter 'recip': did you mean recipe?"),
        (["zzz=1"], "no parameter 'zzz': it has accuracy, data_uri, recipe, report, slices, train_steps"),
        (["train_steps=many"], "train_steps takes a number integer, not 'many'"),
        (["train_steps=1.5"], "train_steps takes a number integer"),
        (["accuracy=high"], "accuracy takes a number double"),
        (["report=maybe"], "report takes a boolean"),
        (["slices={}"], "slices takes a list"),
        (["recipe"], "'recipe' is not of the form name=value"),
        (["recipe=fast"], "needs a value for data_uri: --param data_uri=…"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_is_sent(
    server: Server, package: Path, params: list[str], says: str
) -> None:
    needed = [] if "data_uri" in says and "needs" in says else NEEDED
    flags = [flag for param in params for flag in ("--param", param)]
    for command, more in ((submit_command, []), (schedule_command, ["--every", "1d"])):
        result = invoke(command, package, "--host", server.url, *needed, *flags, *more)

        assert result.exit_code == 2
        assert says in one_line(result)
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "contents", "says"),
    [
        ("mnist.json", "{}", "ends in .yaml"),
        ("mnist.yaml", "", "not a compiled pipeline"),
        ("mnist.yaml", "a: [1", "not a compiled pipeline"),
        ("mnist.yaml", "pipelineInfo: {}\nroot: {dag: {tasks: 3}}", "not a compiled pipeline"),
        ("mnist.yaml", "apiVersion: v1\nkind: Pod\n", "not a compiled pipeline"),
        (
            "mnist.yaml",
            "pipelineInfo: {}\nschemaVersion: 2.0.0\n",
            "has schema 2.0.0; Kubeflow Pipelines reads 2.1.0",
        ),
        ("mnist.yaml", "\x00", "not a compiled pipeline"),
    ],
)
def test_another_file_is_refused_in_one_line(
    server: Server, tmp_path: Path, name: str, contents: str, says: str
) -> None:
    path = tmp_path / name
    path.write_text(contents)

    result = invoke(submit_command, path, "--host", server.url)

    assert result.exit_code == 2
    assert says in one_line(result)
    assert server.requests == []


@pytest.mark.slow
def test_waiting_shows_each_node_as_it_goes(server: Server, package: Path) -> None:
    server.looks = [
        Look("PENDING"),
        Look("RUNNING", [step("root-driver", "SUCCEEDED", 2), step("ExampleGen-driver", "RUNNING")]),
        503,
        Look(
            "RUNNING",
            [
                step("ExampleGen-driver", "SUCCEEDED", 3),
                step("ExampleGen", "SUCCEEDED", 20),
                step("executor", "FAILED", 4),  # a first attempt, tried again
                step("Trainer-driver", "SUCCEEDED", 3),
            ],
        ),
        Look(
            "SUCCEEDED",
            [
                step("ExampleGen-driver", "SUCCEEDED", 3),
                step("ExampleGen", "SUCCEEDED", 20),
                step("Trainer-driver", "SUCCEEDED", 3),
                step("Trainer", "SUCCEEDED", 100),
                step("Evaluator", "SKIPPED", 0),
            ],
        ),
    ]

    result = invoke(submit_command, package, "--host", server.url, *NEEDED, "--wait", "--poll", "0.05")

    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()[2:]]
    assert [line[:2] for line in lines[:-1]] == [
        ["ExampleGen", "running"],
        ["ExampleGen", "succeeded"],
        ["Trainer", "running"],
        ["Trainer", "succeeded"],
        ["Evaluator", "skipped"],
    ]
    assert lines[1][2:] == ["23", "s"]
    assert lines[3][2:] == ["103", "s"]
    assert lines[-1][-1] == "succeeded"


@pytest.mark.slow
@pytest.mark.parametrize("failed", ["Trainer", "Trainer-driver"])
def test_a_failed_run_names_its_node_and_exits_1(server: Server, package: Path, failed: str) -> None:
    server.looks = [
        Look("RUNNING", [step("Trainer", "RUNNING")]),
        Look(
            "FAILED",
            [step("ExampleGen", "SUCCEEDED", 20), step(failed, "FAILED", 9)],
            kfp_server_api.GoogleRpcStatus(code=13, message="child 'Trainer' failed"),
        ),
    ]

    result = invoke(submit_command, package, "--host", server.url, *NEEDED, "--wait", "--poll", "0.05")

    assert result.exit_code == 1
    (run_id,) = server.runs
    line = one_line(result)
    assert line.startswith(f"mnist: run {run_id} failed in Trainer: child 'Trainer' failed; ")
    assert f"pipeline/runid={run_id}" in line


@pytest.mark.slow
def test_a_cancelled_run_ends_the_waiting(server: Server, package: Path) -> None:
    server.looks = [Look("RUNNING"), Look("CANCELING"), Look("CANCELED", [step("Trainer", "CANCELED", 4)])]

    result = invoke(submit_command, package, "--host", server.url, *NEEDED, "--wait", "--poll", "0.05")

    assert result.exit_code == 1
    assert "canceled" in one_line(result)


@pytest.mark.slow
def test_ctrl_c_ends_the_waiting_and_not_the_run(server: Server, package: Path) -> None:
    server.looks = [Look("RUNNING", [step("Trainer", "RUNNING")])]
    # Whoever starts the tests in the background has them, and all that they start, ignore SIGINT.
    listening = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{listening}\nfrom pipeline.cli.main import main; main()"
    program = [sys.executable, "-c", script, "submit", str(package)]
    with subprocess.Popen(
        [*program, "--host", server.url, *NEEDED, "--wait", "--poll", "0.05"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        (run_id,) = re.findall(r"run (\S+)\n", process.stdout.readline())
        while "Trainer" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert process.returncode == 130
    again = f"mnist kubeflow status {run_id} --host {server.url}"
    *before, last = out.splitlines()
    assert last == f"no longer following; the run goes on: {again}"
    # The line that is being flushed when Ctrl-C comes may be written twice.
    assert all(line.startswith("Trainer ") for line in before)
    assert err == ""
    assert all("terminate" not in request for request in server.requests)


def test_waiting_stops_when_the_token_is_no_longer_taken(server: Server, package: Path) -> None:
    server.looks = [Look("RUNNING"), 401]

    result = invoke(submit_command, package, "--host", server.url, *NEEDED, "--wait", "--poll", "0.05")

    assert result.exit_code == 1
    assert "does not know who you are" in one_line(result)


@pytest.mark.slow
def test_waiting_gives_up_on_a_server_that_stays_away(
    server: Server, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "SILENCE_S", 0.2)
    server.looks = [Look("RUNNING"), 503]

    result = invoke(submit_command, package, "--host", server.url, *NEEDED, "--wait", "--poll", "0.05")

    assert result.exit_code == 1
    assert "is not ready (HTTP 503)" in one_line(result)


@pytest.mark.slow
def test_a_renewed_token_file_is_read_again(server: Server, package: Path, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("old")
    server.token = "old"
    server.looks = [Look("RUNNING"), Look("RUNNING"), Look("SUCCEEDED")]

    def sleep(_: float) -> None:
        server.token = "new"
        token_file.write_text("new")

    connection = connect(Access(host=server.url, token_file=token_file))
    compiled = submit.read_package(package)
    run_id = submit.submit(
        connection, compiled, submit.RunOptions(), {"data_uri": "minio://mlpipeline/data"}
    )
    states = [state.state for state in submit.follow(connection, run_id, sleep=sleep)]

    assert states == ["RUNNING", "RUNNING", "SUCCEEDED"]
    assert server.tokens[-1] == "Bearer new"
    assert "Bearer old" in server.tokens


def test_each_call_carries_the_token(server: Server, package: Path) -> None:
    server.token = "secret"

    assert invoke(submit_command, package, "--host", server.url, *NEEDED).exit_code == 1
    assert server.runs == {}
    given = invoke(submit_command, package, "--host", server.url, *NEEDED, "--existing-token", "secret")

    assert given.exit_code == 0, given.output
    assert len(server.runs) == 1


def test_refusals_say_what_to_do(server: Server, package: Path) -> None:
    def refusal(*args: object) -> str:
        result = invoke(submit_command, package, "--host", server.url, *NEEDED, *args)
        assert result.exit_code == 1
        return one_line(result)

    server.token = "secret"
    assert "--token-file or --existing-token (Unauthenticated" in refusal()
    server.token, server.multi_user = None, True
    assert "give yours with --namespace" in refusal()
    server.writable = False
    line = refusal("--namespace", "team-a")
    assert "does not let you use the experiment 'mnist': ask for the role kubeflow-edit" in line
    assert "User 'ann' is not authorized" in line
    server.login_page = True
    assert "answers with a page" in refusal("--namespace", "team-a")
    assert "give a token with --token-file" in refusal()
    # No hint at what was just given.
    line = refusal("--existing-token", "secret")
    assert line.endswith("the token that was given does not get past it")
    assert server.runs == {}


def test_an_address_without_a_scheme_is_taken(server: Server) -> None:
    assert connect(Access(host=server.url.removeprefix("http://"))).host == server.url


def test_several_users_submit_into_their_namespace(server: Server, package: Path) -> None:
    server.multi_user = True

    result = invoke(submit_command, package, "--host", server.url, *NEEDED, "--namespace", "team-a")

    assert result.exit_code == 0, result.output
    assert server.namespaces == ["team-a"]
    assert len(server.runs) == 1


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("http://127.0.0.1:1", "nobody listens there"),
        ("http://kubeflow.invalid", "there is no such host; check --host"),
        ("http://[half", "Failed to parse"),
        ("ftp://kubeflow", "Not supported URL scheme"),
    ],
)
def test_an_unreachable_server_is_one_line(package: Path, host: str, says: str) -> None:
    result = invoke(submit_command, package, "--host", host, *NEEDED)

    assert result.exit_code == 1
    assert f"cannot reach {host}: {says}" in one_line(result)


def test_a_server_without_tls_is_told_from_one_with_it(server: Server, package: Path) -> None:
    result = invoke(submit_command, package, "--host", server.url.replace("http:", "https:"), *NEEDED)

    assert result.exit_code == 1
    assert "is it http:// only?" in one_line(result)


@pytest.mark.slow
def test_a_server_with_a_certificate_of_its_own_is_reached_by_it(package: Path, tmp_path: Path) -> None:
    certificate = tmp_path / "localhost.pem"
    certificate.write_bytes(self_signed("localhost"))
    with kfp_server.running(certificate) as server:
        refused = invoke(submit_command, package, "--host", server.url, *NEEDED)
        assert server.requests == []
        accepted = invoke(submit_command, package, "--host", server.url, *NEEDED, "--ca-file", certificate)

    assert refused.exit_code == 1
    assert "give the server's certificates with --ca-file" in one_line(refused)
    assert accepted.exit_code == 0, accepted.output
    assert len(server.runs) == 1


def self_signed(name: str) -> bytes:
    """PEM of a key and its certificate, good for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def test_without_an_address_and_outside_a_cluster_the_way_is_told(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)

    result = invoke(submit_command, package, *NEEDED)

    assert result.exit_code == 2
    assert "kubectl port-forward" in one_line(result)


@pytest.mark.parametrize("token", ["", "two words", "two\nlines", "\x7f"])
def test_what_is_no_token_is_never_sent(server: Server, package: Path, tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(f"{token}\n")
    for flag, value in (("--existing-token", token), ("--token-file", tmp_path / "token")):
        result = invoke(submit_command, package, "--host", server.url, *NEEDED, flag, value)

        assert result.exit_code == 2
        assert "holds no token" in one_line(result)
    both = ("--existing-token", "a", "--token-file", tmp_path / "token")
    assert invoke(submit_command, package, "--host", server.url, *NEEDED, *both).exit_code == 2
    assert server.requests == []


def test_a_pod_of_the_cluster_needs_no_options(
    server: Server, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "namespace").write_text("team-a\n")
    (tmp_path / "token").write_text("projected\n")
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    monkeypatch.setattr(api, "POD_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr(api, "IN_CLUSTER_HOST", server.url)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    server.token, server.multi_user = "projected", True

    result = invoke(submit_command, package, *NEEDED)

    assert result.exit_code == 0, result.output
    assert set(server.tokens) == {"Bearer projected"}
    assert server.namespaces == ["team-a"]


@pytest.mark.slow
def test_schedules_say_when(server: Server, package: Path) -> None:
    common = (package, "--host", server.url, *NEEDED)
    nightly = invoke(schedule_command, *common, "--cron", "0 0 3 * * *", "--name", "nightly")
    often = invoke(
        schedule_command,
        *(*common, "--every", "6h", "--catch-up", "--max-concurrency", "2", "--no-cache"),
        *("--start", "2030-01-31T00:00:00Z", "--end", "2031-01-31T12:00:00+02:00"),
    )

    assert nightly.exit_code == 0, nightly.output
    assert often.exit_code == 0, often.output
    (first_id, first), (_, second) = server.recurring.items()
    assert nightly.stdout.startswith(f"schedule {first_id}\n")
    assert first["display_name"] == "nightly"
    assert first["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert first["no_catchup"] is True
    assert first["max_concurrency"] == 1
    assert first["mode"] == "ENABLE"
    assert first["runtime_config"]["parameters"] == {"data_uri": "minio://mlpipeline/data"}
    assert second["trigger"] == {
        "periodic_schedule": {
            "interval_second": 21_600,
            "start_time": "2030-01-31T00:00:00+00:00",
            "end_time": "2031-01-31T12:00:00+02:00",
        }
    }
    assert second["no_catchup"] is False
    assert second["max_concurrency"] == 2


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ([], "give --cron or --every"),
        (["--cron", "0 0 3 * * *", "--every", "1d"], "give --cron or --every"),
        (["--cron", "0 3 * * *"], "seconds first: '0 0 3 * * *'"),
        (["--cron", "each day"], "is no cron expression"),
        (["--cron", "0 0 3 * * $"], "is no cron expression"),
        (["--every", "0m"], "is no interval"),
        (["--every", "1.5h"], "is no interval"),
        (["--every", "1d", "--start", "tomorrow"], "is no time"),
        (["--every", "1d", "--end", "2030-01-31T00:00:00"], "has no time zone"),
    ],
)
def test_a_schedule_that_would_be_misread_is_refused(
    server: Server, package: Path, when: list[str], says: str
) -> None:
    result = invoke(schedule_command, package, "--host", server.url, *NEEDED, *when)

    assert result.exit_code == 2
    assert says in one_line(result)
    assert server.requests == []


@pytest.mark.slow
def test_status_tells_a_run_without_waiting(server: Server, package: Path) -> None:
    assert invoke(submit_command, package, "--host", server.url, *NEEDED, "--run-name", "r").exit_code == 0
    (run_id,) = server.runs
    server.looks = [
        Look("RUNNING", [step("ExampleGen", "SUCCEEDED", 7), step("Trainer-driver", "SUCCEEDED", 1)]),
        Look("FAILED", [step("ExampleGen", "SUCCEEDED", 7), step("Trainer", "FAILED", 9)]),
    ]

    running = invoke(status, run_id, "--host", server.url)
    failed = invoke(status, run_id, "--host", server.url)
    unknown = invoke(status, "no-such-run", "--host", server.url)

    assert running.exit_code == 0, running.output
    assert [line.split()[:2] for line in running.stdout.splitlines()[1:4]] == [
        ["ExampleGen", "succeeded"],
        ["Trainer", "running"],
        ["Evaluator", "pending"],
    ]
    assert running.stdout.splitlines()[-1] == f"run {run_id}: running"
    assert failed.exit_code == 1
    assert "failed in Trainer" in one_line(failed)
    assert unknown.exit_code == 1
    assert "Run no-such-run not found" in one_line(unknown)
    assert "address" not in one_line(unknown)


def test_nodes_are_found_where_the_run_has_no_spec() -> None:
    run = kfp_server_api.V2beta1Run(
        run_id="1",
        state="RUNNING",
        run_details=kfp_server_api.V2beta1RunDetails(
            task_details=[
                step("root", "RUNNING"),
                step("root-driver", "SUCCEEDED", 1),
                step("Trainer", "RUNNING"),
                step("Trainer-driver", "SUCCEEDED", 1),
                step("executor", "RUNNING"),
            ]
        ),
    )

    assert [node.name for node in submit.run_state(run).nodes] == ["Trainer"]


def test_nodes_come_in_an_order_in_which_they_run(package: Path) -> None:
    assert submit.read_package(package).file.order() == ["ExampleGen", "Trainer", "Evaluator"]


@pytest.mark.slow
@given(st.text(max_size=12) | st.from_regex(r"[0-9]{1,6}[smhd]", fullmatch=True))
def test_any_text_is_an_interval_or_one_line(text: str) -> None:
    accepted = outcome(submit.seconds, text)

    assert accepted > 0 if isinstance(accepted, int) else repr(text) in str(accepted)


def outcome(parse: Callable[[str], str | int], text: str) -> str | int | submit.SubmitError:
    """What a parser gives back, or why it refuses."""
    try:
        return parse(text)
    except submit.SubmitError as error:
        return error
