"""The client: the same answers by gRPC and REST, and errors that say what is wrong."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.client import Client, Tls, TransportName, rest
from serving.protocol.errors import Code, ServingError
from tests.integration.serving.model_server import Server, running

TRANSPORTS: tuple[TransportName, ...] = ("grpc", "rest")
ONE = {"x": np.array([1], np.float32)}


class Halves(tf.Module):
    """half_plus_two, and a signature that shows what becomes of each kind of value."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def half_plus_two(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x / 2 + 2}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 2], tf.uint8, "pixels"),
            tf.TensorSpec([None], tf.string, "name_bytes"),
        ]
    )
    def echo(self, pixels: tf.Tensor, name_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"pixels": pixels, "name_bytes": name_bytes, "nan": tf.zeros([1]) / tf.zeros([1])}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("halves")
    module = Halves()
    tf.saved_model.save(
        module,
        str(folder / "halves" / "12"),
        signatures={"serving_default": module.half_plus_two, "echo": module.echo},
    )
    with running(folder / "halves", folder) as server:
        yield server


def client(server: Server, transport: TransportName, **options: object) -> Client:
    port = server.grpc_port if transport == "grpc" else server.rest_port
    return Client(port=port, transport=transport, **({"model": "halves"} | options))  # type: ignore[arg-type]


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> TransportName:
    return request.param


def test_predicts(server: Server, transport: TransportName) -> None:
    with client(server, transport) as asked:
        answer = asked.predict({"x": np.array([1.0, 2.0, 5.0], np.float32)})
    assert set(answer.outputs) == {"y"}
    np.testing.assert_allclose(answer.outputs["y"], [2.5, 3.0, 4.5])
    assert answer.version == (12 if transport == "grpc" else None)
    assert 0 < answer.latency_s < 10


def test_bytes_survive_the_journey(server: Server, transport: TransportName) -> None:
    names = [b"\x00\xff\x00", "größer".encode(), b"", b"tail\x00"]
    pixels = np.arange(8, dtype=np.uint8).reshape(4, 2)
    with client(server, transport) as asked:
        answer = asked.predict({"pixels": pixels, "name_bytes": names}, "echo")
    assert answer.outputs["name_bytes"].tolist() == names
    np.testing.assert_array_equal(answer.outputs["pixels"], pixels)
    assert np.isnan(answer.outputs["nan"]).all()


def test_tells_what_the_model_takes(server: Server, transport: TransportName) -> None:
    with client(server, transport) as asked:
        metadata = asked.metadata()
        (status,) = asked.status()
    assert metadata.version == 12
    echo = metadata.signatures["echo"]
    assert {name: (info.dtype, info.shape) for name, info in echo.inputs.items()} == {
        "pixels": ("DT_UINT8", (None, 2)),
        "name_bytes": ("DT_STRING", (None,)),
    }
    assert set(echo.outputs) == {"pixels", "name_bytes", "nan"}
    assert (status.version, status.state, status.error) == (12, "AVAILABLE", "")


def test_asks_the_version_it_is_told(server: Server, transport: TransportName) -> None:
    with client(server, transport, version=12) as asked:
        assert asked.predict(ONE).version == 12
    with client(server, transport, version=13) as asked, pytest.raises(ServingError) as raised:
        asked.predict(ONE)
    assert raised.value.code is Code.NOT_FOUND


@pytest.mark.parametrize(
    ("options", "signature", "inputs", "code"),
    [
        ({"model": "nobody"}, "serving_default", ONE, Code.NOT_FOUND),
        ({"label": "canary"}, "serving_default", ONE, None),
        ({}, "nothing", ONE, None),
        ({}, "serving_default", {"z": ONE["x"]}, None),
    ],
    ids=["model", "label", "signature", "input"],
)
def test_errors_are_the_servers(
    server: Server,
    transport: TransportName,
    options: dict[str, object],
    signature: str,
    inputs: dict[str, np.ndarray],
    code: Code | None,
) -> None:
    with client(server, transport, **options) as asked, pytest.raises(ServingError) as raised:
        asked.predict(inputs, signature)
    # Some codes differ between TF Serving's two APIs.
    assert raised.value.code in ({code} if code else {Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION})
    assert raised.value.message


def test_threads_share_a_client(server: Server, transport: TransportName) -> None:
    def ask(value: int) -> float:
        return float(asked.predict({"x": np.array([value], np.float32)}).outputs["y"][0])

    with client(server, transport) as asked, futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(200))) == [value / 2 + 2 for value in range(200)]


def test_nobody_there_is_said_soon(transport: TransportName) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        began_at = time.monotonic()
        with Client(port=port, transport=transport) as asked, pytest.raises(ServingError) as raised:
            asked.status()
    assert raised.value.code is Code.UNAVAILABLE
    assert f"no server answers at {'http://' if transport == 'rest' else ''}127.0.0.1:{port}" in str(
        raised.value
    )
    assert "refused" in str(raised.value)
    assert time.monotonic() - began_at < 3


def test_a_server_that_never_answers_meets_the_deadline(transport: TransportName) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_at = time.monotonic()
        port = silent.getsockname()[1]
        with (
            Client(port=port, transport=transport, timeout_s=0.5) as asked,
            pytest.raises(ServingError) as raised,
        ):
            asked.status()
    assert raised.value.code in {Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE}
    assert 0.4 < time.monotonic() - began_at < 3


class Moody(BaseHTTPRequestHandler):
    """Answers with the statuses that it is given, then well; notes each connection."""

    protocol_version = "HTTP/1.1"
    statuses: ClassVar[list[int]] = []
    connections: ClassVar[set[object]] = set()
    body: ClassVar[bytes] = b'{"model_version_status": []}'

    def do_GET(self) -> None:
        Moody.connections.add(self.client_address)
        status = Moody.statuses.pop(0) if Moody.statuses else 200
        body = Moody.body if status == 200 else b'{"error": "not now"}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def moody() -> Iterator[int]:
    Moody.statuses, Moody.connections, Moody.body = [], set(), b'{"model_version_status": []}'
    with ThreadingHTTPServer(("127.0.0.1", 0), Moody) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_on_the_same_connection(moody: int, status: int) -> None:
    Moody.statuses = [status, status]
    with Client(port=moody, transport="rest") as asked:
        assert asked.status() == []
    assert not Moody.statuses
    assert len(Moody.connections) == 1


@pytest.mark.parametrize(
    ("status", "code"), [(400, Code.INVALID_ARGUMENT), (404, Code.NOT_FOUND), (500, Code.INTERNAL)]
)
def test_a_refusal_is_taken_at_its_word(moody: int, status: int, code: Code) -> None:
    Moody.statuses = [status] * 9
    with (
        Client(port=moody, transport="rest") as asked,
        pytest.raises(ServingError, match="not now") as raised,
    ):
        asked.status()
    assert raised.value.code is code
    assert len(Moody.statuses) == 8


def test_attempts_are_limited(moody: int) -> None:
    Moody.statuses = [503] * 9
    with Client(port=moody, transport="rest", attempts=3) as asked, pytest.raises(ServingError):
        asked.status()
    assert len(Moody.statuses) == 6


def test_another_kind_of_server_is_recognised(moody: int) -> None:
    Moody.body = b"<html>It works!</html>"
    with Client(port=moody, transport="rest") as asked, pytest.raises(ServingError, match="no TF Serving"):
        asked.status()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Client(transport="carrier pigeon"),  # type: ignore[arg-type]
        lambda: Client(version=1, label="stable"),
        lambda: Client(timeout_s=0),
        lambda: Client(attempts=0),
        lambda: Tls(certificate=Path("client.pem")),
    ],
)
def test_senseless_settings_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        wrong()  # type: ignore[operator]


@given(arrays.arrays(object, arrays.array_shapes(max_dims=2), elements=st.binary(max_size=8)))
def test_strings_come_back_from_json(array: np.ndarray) -> None:
    assert rest.to_array(rest.to_json(array)).tolist() == array.tolist()


def test_tensorflow_is_not_imported_and_can_be_afterwards() -> None:
    script = """
import sys, time
from serving.client import Client
from serving.protocol import protos, tensors
assert not [name for name in sys.modules if name.startswith("tensorflow.")], "TensorFlow was imported"
import tensorflow as tf
request = protos.predict_pb2.PredictRequest()
request.inputs["x"].CopyFrom(tf.make_tensor_proto([1.0, 2.0]))
assert tensors.to_array(request.inputs["x"], "x").tolist() == [1.0, 2.0]
"""
    subprocess.run([sys.executable, "-c", script], check=True)
