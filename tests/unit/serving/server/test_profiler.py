"""TensorFlow's own profiler client against the service."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from serving.models.runtime import tf
from serving.protocol.protos import xplane_pb2
from serving.server import profiler
from serving.server.profiler import Profiler, ProfileRequest, ProfileResponse

WAIT_S = 60


@pytest.fixture
def port() -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(4))
    Profiler().add_to(server)
    at = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield at
    server.stop(0).wait()


@pytest.mark.slow
def test_tensorflows_client_gets_a_trace(port: int, tmp_path: Path) -> None:
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            tf.square(2.0)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(work)
        try:
            tf.profiler.experimental.client.trace(f"grpc://127.0.0.1:{port}", str(tmp_path), 200)
        finally:
            ended.set()
    (trace,) = tmp_path.glob("plugins/profile/*/*.xplane.pb")
    assert trace.name == f"127.0.0.1_{port}.xplane.pb"
    space = xplane_pb2.XSpace.FromString(trace.read_bytes())
    names = {each.name for plane in space.planes for each in plane.event_metadata.values()}
    assert any("Square" in name for name in names)


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"repository_root": ""}, "INVALID_ARGUMENT", "repository_root is missing: where to write to"),
        ({"session_id": "../up"}, "INVALID_ARGUMENT", "'../up' is no name of a file"),
        ({"host_name": ""}, "INVALID_ARGUMENT", "'' is no name of a file"),
        (
            {"opts": {"host_tracer_level": 3}},
            "INVALID_ARGUMENT",
            "this server traces with host_tracer_level 2 and python_tracer_level 0 alone, not (3, 0)",
        ),
        ({"duration_ms": 0}, "INVALID_ARGUMENT", "duration_ms is 1 to 600000, not 0"),
    ],
)
def test_what_cannot_be_traced(port: int, tmp_path: Path, fields: dict, code: str, says: str) -> None:
    asked = {"repository_root": str(tmp_path), "session_id": "now", "host_name": "here", "duration_ms": 1}
    with pytest.raises(grpc.RpcError) as refusal:
        call(port, ProfileRequest(**asked | fields))
    assert (refusal.value.code().name, refusal.value.details()) == (code, says)
    assert not list(tmp_path.iterdir())


def test_one_trace_at_a_time(port: int, tmp_path: Path) -> None:
    refused: queue.Queue[grpc.Future] = queue.Queue()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for name in ("one", "two"):
            request = ProfileRequest(
                repository_root=str(tmp_path), session_id="now", host_name=name, duration_ms=60_000
            )
            stub(channel).future(request).add_done_callback(refused.put)
        assert refused.get(timeout=WAIT_S).code() is grpc.StatusCode.ALREADY_EXISTS
    # Without its client the other one ends at once.


def call(port: int, request: object) -> object:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return stub(channel)(request, timeout=WAIT_S)


def stub(channel: grpc.Channel) -> grpc.UnaryUnaryMultiCallable:
    return channel.unary_unary(
        f"/{profiler.NAME}/Profile", lambda request: request.SerializeToString(), ProfileResponse.FromString
    )
