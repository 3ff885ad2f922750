"""TF Serving's command line: its flags, its defaults, and one line for what cannot be."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving import tensorflow_model_server
from serving.models.batching_parameters import Join
from serving.models.config_file import ModelConfig
from serving.server.run import ServerConfig
from setup.venv import ROOT


def parsed(*arguments: str) -> argparse.Namespace:
    return tensorflow_model_server._parser().parse_args(arguments)


def config(*arguments: str) -> ServerConfig:
    with ExitStack() as stack:
        return tensorflow_model_server._config(
            tensorflow_model_server._parser().parse_args(arguments), stack
        )


def test_the_defaults_are_tf_servings() -> None:
    found = config("--model_base_path=/models/m")
    assert found.models == [ModelConfig("default", Path("/models/m"))]
    assert (found.host, found.grpc_port, found.rest_port) == ("0.0.0.0", 8500, None)
    assert found.limits.answer_timeout_s == 30.0
    assert found.batching.join is not Join.ALL
    assert (found.loading.poll_s, found.loading.max_retries, found.loading.retry_s) == (1, 5, 60.0)
    assert found.loading.tags == ("serve",)
    assert found.warm_up_times == 1
    assert not found.cors
    assert not found.packed_answers


def test_the_entrypoint_of_the_image_is_tf_servings(tmp_path: Path) -> None:
    program = tmp_path / "tensorflow_model_server"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    entrypoint = [ROOT / "serving/tf_serving_entrypoint.sh", "--enable_batching", "--rest_api_port=9000"]
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "MODEL_NAME": "my model",
        "MODEL_BASE_PATH": "/models",
    }
    given = subprocess.run(entrypoint, env=env, check=True, capture_output=True, text=True).stdout
    found = config(*given.splitlines())
    assert found.models == [ModelConfig("my model", Path("/models/my model"))]
    assert (found.grpc_port, found.rest_port) == (8500, 9000), "what is given counts"
    assert found.batching.join is Join.ALL


def test_the_command_line_of_its_image(tmp_path: Path) -> None:
    batching = tmp_path / "batching.config"
    batching.write_text("max_batch_size { value: 8 }")
    monitoring = tmp_path / "monitoring.config"
    monitoring.write_text('prometheus_config { enable: true, path: "/metrics" }')
    found = config(
        "--port=8500",
        "--rest_api_port=8501",
        "--model_name=mnist",
        "--model_base_path=/models/mnist",
        "--rest_api_port=0",
        "--enable_batching",
        f"--batching_parameters_file={batching}",
        "--enable_per_model_batching_parameters=true",
        f"--monitoring_config_file={monitoring}",
        "--rest_api_enable_cors_support=true",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=2000,grpc.lb_policy_name=grpclb",
        "--enable_model_warmup=false",
        "--saved_model_tags=serve,gpu",
        "--load_retry_interval_micros",
        "500000",
        "--tensorflow_session_parallelism=3",
        "--prefer_tflite_model",
        "--num_tflite_pools=2",
    )
    assert found.rest_port is None, "the last one counts"
    assert found.batching.join is Join.ALL
    assert found.batching.max_batch_size == 8
    assert found.batching_per_model
    assert (found.loading.prefer_tflite, found.loading.tflite_interpreters) == (True, 2)
    assert found.metrics_path == "/metrics"
    assert found.cors
    assert found.grpc_arguments == {"grpc.max_connection_age_ms": 2000, "grpc.lb_policy_name": "grpclb"}
    assert found.warm_up_times == 0
    assert found.loading.tags == ("serve", "gpu")
    assert (found.loading.retry_s, found.loading.op_threads) == (0.5, 3)


def test_keys_come_out_of_the_file_and_are_nobody_elses(tmp_path: Path) -> None:
    file = tmp_path / "ssl.config"
    file.write_text('server_key: "KEY" server_cert: "CERT" custom_ca: "CA" client_verify: true')
    arguments = [f"--ssl_config_file={file}", "--model_base_path=/m"]
    with ExitStack() as stack:
        found = tensorflow_model_server._config(parsed(*arguments), stack)
        assert found.tls is not None
        assert found.tls.client_ca is not None
        assert [
            path.read_text() for path in (found.tls.key, found.tls.certificate, found.tls.client_ca)
        ] == [
            "KEY",
            "CERT",
            "CA",
        ]
        assert found.tls.key.parent.stat().st_mode & 0o077 == 0
        assert not found.rest_tls
    assert not found.tls.key.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model_base_path=/m", "--no_such_flag=1"], "unrecognized arguments: --no_such_flag=1"),
        (["--port=x", "--model_base_path=/m"], "--port: invalid int value"),
        (["--enable_batching=maybe", "--model_base_path=/m"], "true or false, not 'maybe'"),
        ([], "--model_base_path or --model_config_file is needed"),
        (["--use_alts_credentials", "--model_base_path=/m"], "--use_alts_credentials is not supported"),
        (["--model_config_file=/no/such/file"], "/no/such/file: No such file or directory"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        tensorflow_model_server.main(arguments)
    assert end.value.code == 2
    (line,) = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("tensorflow_model_server: ")
    ]
    assert message in line


def test_a_flag_without_effect_is_taken_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit):
        tensorflow_model_server.main(
            ["--num_unload_threads=3", "--flush_filesystem_caches", "--model_config_file=/no"]
        )
    assert [record.message for record in caplog.records] == [
        "--flush_filesystem_caches has no effect: files are not kept in memory",
        "--num_unload_threads has no effect: versions are unloaded as soon as nobody asks them",
    ]


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    tensorflow_model_server.main(["--version"])
    assert "TensorFlow ModelServer: " in capsys.readouterr().out
