"""Several processes at the same ports: one set of versions, one set of metrics, one end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.integration.serving.conftest import CALL_S, Endpoint
from tests.integration.serving.model_server import Server, running
from tests.unit.serving import half_plus_two

WORKERS = 2
# The kernel chooses a process for each new connection: that all choose one has a chance of 2 ** -39.
CONNECTIONS = 40
WAIT_S = 120.0


@pytest.fixture
def model(half_plus_two_dir: Path, tmp_path: Path) -> Path:
    """A folder with version 1."""
    shutil.copytree(half_plus_two_dir / half_plus_two.NAME / "00000001", tmp_path / "m" / "1")
    return tmp_path / "m"


@pytest.fixture
def server(model: Path, tmp_path: Path) -> Iterator[Server]:
    with running(model, tmp_path, "--workers", str(WORKERS)) as server:
        yield server


def listeners(port: int) -> int:
    """Sockets that listen at a port; state 0A is LISTEN."""
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table.splitlines()]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "0A" for line in lines)


def grpc_answer(server: Server, name: str = "m") -> tuple[int, float]:
    """The version that answers x = 2, and its answer, on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) as channel:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = name
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array([2.0], np.float32)))
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, CALL_S)
    return answer.model_spec.version.value, answer.outputs["y"].float_val[0]


def state_of(there: Endpoint, version: int) -> str:
    return str(there.rest("GET", f"/v1/models/m/versions/{version}")[1]["model_version_status"][0]["state"])


def test_workers_share_ports_versions_metrics_and_reloads(
    server: Server, model: Path, half_plus_two_dir: Path
) -> None:
    there = Endpoint("127.0.0.1", server.rest_port, server.grpc_port)
    assert [listeners(port) for port in (server.rest_port, server.grpc_port)] == [WORKERS, WORKERS]

    body = {"instances": [2.0]}
    for _ in range(CONNECTIONS):
        assert there.rest("POST", "/v1/models/m:predict", body) == (200, {"predictions": [3.0]})
        assert grpc_answer(server) == (1, 3.0)
    page = there.rest("GET", "/monitoring/prometheus/metrics")[1]
    count = 'request_count{model_name="m",status="OK",version="1"}'
    assert re.findall(re.escape(count) + r" (\S+)", page) == [f"{2 * CONNECTIONS}.0"]
    latency = 'request_latency_count{API="Predict",entrypoint="GRPC",model_name="m",version="1"}'
    assert re.findall(re.escape(latency) + r" (\S+)", page) == [f"{CONNECTIONS}.0"]

    # A new version: answered throughout, and by all workers when one of them says that the old has gone.
    draft = shutil.copytree(half_plus_two_dir / half_plus_two.NAME / "00000002", model.parent / "draft")
    draft.rename(model / "2")
    seen = set()
    ends_at = time.monotonic() + WAIT_S
    while state_of(there, 1) != "END":
        assert time.monotonic() < ends_at
        seen.add(grpc_answer(server))
    assert seen <= {(1, 3.0), (2, 4.0)}
    assert {grpc_answer(server) for _ in range(CONNECTIONS)} == {(2, 4.0)}

    # What one worker is asked to serve, all serve.
    reload = model_management_pb2.ReloadConfigRequest()
    other = f"name: 'other' base_path: '{model}' model_platform: 'tensorflow'"
    text_format.Parse(f"model_config_list {{ config {{ {other} }} }}", reload.config)
    with there.channel() as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        assert stub.HandleReloadConfigRequest(reload, WAIT_S).status.error_code == 0
    assert {grpc_answer(server, "other") for _ in range(CONNECTIONS)} == {(2, 4.0)}
    assert {there.rest("POST", "/v1/models/m:predict", body)[0] for _ in range(CONNECTIONS)} == {404}

    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(WAIT_S) == 0
    assert [listeners(port) for port in (server.rest_port, server.grpc_port)] == [0, 0]


def test_what_ends_the_server(server: Server, model: Path, tmp_path: Path) -> None:
    # Its ports are not shared with another server.
    second, taken = tmp_path / "second", str(server.rest_port)
    second.mkdir()
    with (
        pytest.raises(AssertionError, match=rf"127\.0\.0\.1:{taken}: Address already in use"),
        running(model, second, "--workers", "2", "--rest-port", taken),
    ):
        pass

    # A worker that ends takes the others with it.
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == WORKERS
    os.kill(int(workers[0]), signal.SIGKILL)
    assert server.process.wait(WAIT_S) == 1
    last = (tmp_path / "server.log").read_text().splitlines()[-1]
    assert last.endswith(": worker 1 was ended by SIGKILL, and the server with it")
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
