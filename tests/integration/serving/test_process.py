"""The server as a process: how it starts, what it withstands, what it writes down, how it ends."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from serving.cli import serve
from tests.integration.serving.conftest import CALL_S, Endpoint
from tests.integration.serving.model_server import Server, running
from tests.unit.serving import half_plus_two

MODEL = "/v1/models/m"
SMALL = ("--max-request-mb", "1", "--arrival-timeout", "1")


def at(server: Server) -> Endpoint:
    return Endpoint("127.0.0.1", server.rest_port, server.grpc_port)


def predict_request(x: list[float], name: str = "m") -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array(x, np.float32)))
    return request


@pytest.fixture(scope="module")
def version(half_plus_two_dir: Path) -> Path:
    return half_plus_two_dir / half_plus_two.NAME / "00000001"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def small(version: Path, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A server that takes little, and writes down everything."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(version, folder / "m" / "1")
    written = ("--access-log", str(logs / "access.jsonl"), "--log-requests", str(logs / "requests"))
    with running(folder / "m", folder, *SMALL, *written) as server:
        there = at(server)
        answers(there)
        there.rest("POST", f"{MODEL}:predict", {})
        yield there
    check_access_log(logs / "access.jsonl")
    check_request_log(logs / "requests")


def answers(there: Endpoint) -> None:
    """Good requests are answered."""
    assert there.rest("GET", MODEL)[0] == 200
    assert there.rest("POST", f"{MODEL}:predict", {"instances": [2.0]}) == (200, {"predictions": [3.0]})
    with there.channel() as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert list(stub.Predict(predict_request([4.0]), CALL_S).outputs["y"].float_val) == [4.0]


def check_access_log(path: Path) -> None:
    """What was asked of the server stands in its access log, a JSON object a line."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    asked = {(line["entrypoint"], line["api"], line["status"]) for line in lines}
    assert {
        ("REST", "Predict", "OK"),
        ("REST", "Predict", "INVALID_ARGUMENT"),
        ("GRPC", "Predict", "OK"),
        ("REST", "Status", "OK"),
    } <= asked
    good = next(line for line in lines if (line["api"], line["status"]) == ("Predict", "OK"))
    assert (good["model"], good["version"]) == ("m", "1")
    assert good["latency_ms"] > 0
    assert good["request_bytes"] > 0


def check_request_log(folder: Path) -> None:
    """Predict requests and their answers stand in the request log, which is complete."""
    files = list(folder.iterdir())
    assert files
    assert all(file.name.endswith(".tfrecord") for file in files)
    records = [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in tf.data.TFRecordDataset([str(file) for file in files]).as_numpy_iterator()
    ]
    record = next(each for each in records if len(each.predict_log.response.outputs["y"].float_val) == 1)
    x = record.predict_log.request.inputs["x"].float_val[0]
    assert record.predict_log.response.outputs["y"].float_val[0] == x / 2 + 2
    assert record.log_metadata.model_spec.version.value == 1
    assert record.log_metadata.sampling_config.sampling_rate == 1.0
    assert record.log_metadata.timestamp_secs > 0


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b" " * 2**21, {}, 413, "over the limit"),
        (gzip.compress(b" " * 2**28), {"Content-Encoding": "gzip"}, 413, "over the limit"),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400, "Failed to decompress"),
        (gzip.compress(b"{}" * 999)[:-9], {"Content-Encoding": "gzip"}, 400, "ends too early"),
        (b'{"instances":' + b"[" * 400_000, {}, 400, "JSON Parse error"),
        (b'{"instances":' * 70_000, {}, 400, "JSON Parse error"),
        (b'{"instances":' + b"[" * 900 + b"]" * 900 + b"}", {}, 400, "list at unexpected level"),
    ],
    ids=[
        "big",
        "gzip bomb",
        "no gzip",
        "cut gzip",
        "deep list",
        "deep object",
        "deep but even",
    ],
)
def test_a_body_over_a_limit_is_refused(
    small: Endpoint, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    answer = small.rest("POST", f"{MODEL}:predict", body, headers)
    assert answer[0] == status
    assert message in answer[1]["error"]
    answers(small)


def test_a_message_over_the_limit_is_refused(small: Endpoint) -> None:
    with small.channel() as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(predict_request([1.0] * 2**19), CALL_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    answers(small)


def test_clients_that_are_slow_or_leave_or_talk_nonsense(small: Endpoint) -> None:
    """A hundred connections that say nothing, half a head, half a body, or garbage: others are answered."""
    openings = [
        b"",
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\n",
        b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        b"\x00\xff garbage \r\n\r\n",
        b"GET " + b"a" * 100_000,
    ]
    sockets = []
    for number in range(100):
        for port in (small.rest_port, small.grpc_port):
            connection = socket.create_connection(("127.0.0.1", port), CALL_S)
            connection.sendall(openings[number % len(openings)])
            sockets.append(connection)
    answers(small)
    for connection in sockets:
        connection.close()
    answers(small)


def test_a_head_that_never_ends_is_not_waited_for(small: Endpoint) -> None:
    with socket.create_connection(("127.0.0.1", small.rest_port), CALL_S) as connection:
        connection.sendall(b"GET /v1/models/m HTTP/1.1\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert connection.recv(1000) == b""


def test_static_pages_do_not_hide_the_api(small: Endpoint) -> None:
    assert small.rest("GET", "/nowhere")[0] == 404
    assert small.rest("GET", "/../rest.py")[0] == 404
    assert small.rest("GET", "/v1/nowhere")[0] == 400


def test_an_empty_folder_is_waited_for_and_said_so(version: Path, tmp_path: Path) -> None:
    folder, ready = tmp_path / "m", tmp_path / "ready.json"
    command = [
        sys.executable,
        "-m",
        "serving",
        "--model-dir",
        str(folder),
        "--rest-port",
        "0",
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        [*command, "--ready-file", str(ready)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "waiting for one" in line:
                break
        assert str(folder) in line
        assert not ready.exists()
        shutil.copytree(version, folder / "1")
        for line in process.stdout:
            if line.startswith("serving m"):
                break
        ports = json.loads(ready.read_text())
        there = Endpoint("127.0.0.1", ports["rest_port"], ports["grpc_port"])
        assert there.rest("POST", f"{MODEL}:predict", {"instances": [2.0]}) == (200, {"predictions": [3.0]})
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(CALL_S) == 0


class Slow(tf.Module):
    """A model that takes its time."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """A few seconds of work that the graph optimizer cannot shorten."""
        y = tf.while_loop(lambda i, _: i < 300_000, lambda i, y: (i + 1, tf.sin(y)), [0, tf.reduce_sum(x)])[
            1
        ]
        return {"y": x + 0 * y}


def test_a_slow_model(tmp_path: Path) -> None:
    """Deadlines are kept meanwhile, and SIGTERM lets requests in flight finish."""
    slow = Slow()
    tf.saved_model.save(slow, str(tmp_path / "m" / "1"), signatures={"serving_default": slow.predict})
    answers: list[Any] = []

    with running(tmp_path / "m", tmp_path, "--batching", "none") as server:
        there = at(server)

        def ask_rest() -> None:
            answers.append(there.rest("POST", f"{MODEL}:predict", {"instances": [2.0]}))

        def ask_grpc() -> None:
            with there.channel() as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                answers.append(list(stub.Predict(predict_request([3.0]), CALL_S).outputs["y"].float_val))

        with there.channel() as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            start = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(predict_request([1.0]), 0.1)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert time.monotonic() - start < 1
        threads = [threading.Thread(target=ask) for ask in (ask_rest, ask_grpc)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        assert not answers
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert server.process.wait(CALL_S) == 0
    assert sorted(answers, key=str) == [(200, {"predictions": [2.0]}), [3.0]]


def test_versions_change_under_load_without_a_failed_request(
    half_plus_two_dir: Path, tmp_path: Path
) -> None:
    versions = half_plus_two_dir / half_plus_two.NAME
    shutil.copytree(versions / "00000001", tmp_path / "m" / "1")
    stop = threading.Event()
    seen: list[set[float]] = [set() for _ in range(6)]
    failures: list[object] = []

    with running(tmp_path / "m", tmp_path) as server:
        there = at(server)

        def rest(answers: set[float]) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=CALL_S)
            while not stop.is_set():
                connection.request("POST", f"{MODEL}:predict", b'{"instances": [2.0]}')
                response = connection.getresponse()
                content = response.read()
                if response.status != 200:
                    failures.append(content)
                    return
                answers.add(json.loads(content)["predictions"][0])
            connection.close()

        def rpc(answers: set[float]) -> None:
            with there.channel() as channel:
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                while not stop.is_set():
                    try:
                        answers.add(stub.Predict(predict_request([2.0]), CALL_S).outputs["y"].float_val[0])
                    except grpc.RpcError as error:
                        failures.append(error)
                        return

        threads = [
            threading.Thread(target=rpc if number % 2 else rest, args=(answers,))
            for number, answers in enumerate(seen)
        ]
        for thread in threads:
            thread.start()
        for number in range(2, 5):
            draft = shutil.copytree(versions / f"{number % 2 + 1:08d}", tmp_path / "draft")
            draft.rename(tmp_path / "m" / str(number))
            if number == 3:  # and a bad one among them
                (tmp_path / "m" / "900").mkdir()
                (tmp_path / "m" / "900" / "saved_model.pb").write_bytes(b"bad")
                time.sleep(1.5)
                shutil.rmtree(tmp_path / "m" / "900")
            ends_at = time.monotonic() + CALL_S
            while (
                there.rest("GET", f"{MODEL}/versions/{number}")[1]
                .get("model_version_status", [{}])[0]
                .get("state")
                != "AVAILABLE"
            ):
                assert time.monotonic() < ends_at
                time.sleep(0.05)
            time.sleep(0.2)
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert all(answers == {3.0, 4.0} for answers in seen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--model-config-file", "{bad}"],
            "Error parsing text-format tensorflow.serving.ModelServerConfig",
        ),
        (["--batching-parameters-file", "{bad}"], "Error parsing text-format"),
        (["--tls-cert", "{bad}"], "--tls-cert and --tls-key go together"),
        (["--tls-cert", "{bad}", "--tls-key", "{bad}"], "bad.config"),
        (["--rest-port", "{used}"], "127.0.0.1:{used}: Address already in use"),
        (["--port", "{used}"], "127.0.0.1:{used}: cannot listen"),
        (["--access-log", "/dev/null/x"], "/dev/null/x: Not a directory"),
        (["--grpc-channel-arguments", "grpc.x"], "grpc.x: a channel argument is NAME=VALUE"),
        (["--model-dir", "{version}"], "{version}: it is a version itself; give "),
    ],
)
def test_bad_settings_end_in_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "bad.config").write_text("no { such")
    (tmp_path / "m" / "7").mkdir(parents=True)
    (tmp_path / "m" / "7" / "saved_model.pb").touch()
    with socket.create_server(("127.0.0.1", 0)) as used:
        words = {"bad": str(tmp_path / "bad.config"), "used": str(used.getsockname()[1])}
        words["version"] = str(tmp_path / "m" / "7")
        command = ["--model-dir", str(tmp_path), "--rest-port", "0", "--port", "0"]
        result = CliRunner().invoke(serve, [*command, *(each.format(**words) for each in arguments)])
    assert result.exit_code == 2
    assert result.output.startswith("serve: ")
    assert message.format(**words) in result.output
    assert len(result.output.splitlines()) == 1


def test_a_thousand_open_files_and_many_more_connections(version: Path, tmp_path: Path) -> None:
    """Silent connections to both ports shut nobody out, and are not worth a line of the log each."""
    shutil.copytree(version, tmp_path / "m" / "1")
    with running(tmp_path / "m", tmp_path, within=("prlimit", "--nofile=1024:1024")) as server:
        there = at(server)
        rest = [socket.create_connection(("127.0.0.1", server.rest_port), CALL_S) for _ in range(1300)]
        rpc = [socket.create_connection(("127.0.0.1", server.grpc_port), CALL_S) for _ in range(400)]
        start = time.monotonic()
        answers(there)
        assert time.monotonic() - start < CALL_S / 2
        assert rest[0].recv(1) == b""
        for connection in rest + rpc:
            connection.close()
        answers(there)
    assert len((tmp_path / "server.log").read_text().splitlines()) < 20


def test_a_changed_config_file_is_applied(version: Path, tmp_path: Path) -> None:
    config = tmp_path / "models.config"

    def write(*names: str) -> None:
        models = "".join(
            f"config {{ name: '{name}' base_path: '{tmp_path / name}' model_platform: 'tensorflow' }}"
            for name in names
        )
        config.write_text(f"model_config_list {{ {models} }}")

    def status(name: str, expected: int) -> None:
        ends_at = time.monotonic() + CALL_S
        while there.rest("GET", f"/v1/models/{name}")[0] != expected:
            assert time.monotonic() < ends_at
            time.sleep(0.05)

    for name in ("m", "n"):
        shutil.copytree(version, tmp_path / name / "1")
    write("m")
    arguments = ("--model-config-file", str(config), "--config-poll", "0.1")
    with running(tmp_path / "m", tmp_path, *arguments) as server:
        there = at(server)
        write("m", "n")
        status("n", 200)
        config.write_text("no { such")
        ends_at = time.monotonic() + CALL_S
        while "cannot be applied" not in (tmp_path / "server.log").read_text():
            assert time.monotonic() < ends_at
            time.sleep(0.05)
        answers(there)
        write("n")
        status("m", 404)
        status("n", 200)
    log = (tmp_path / "server.log").read_text()
    assert log.count("cannot be applied") == 1
    assert log.count("is applied") == 2


def test_the_server_imports_tensorflow_and_grpc_without_keras_and_no_other_room() -> None:
    program = "import sys, serving.server.run; print(' '.join(sys.modules))"
    command = [sys.executable, "-c", program]
    # As a run sets it, which starts a server on its candidate.
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1"}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    loaded = set(output.split())
    assert {"tensorflow", "grpc"} <= loaded
    rooms = {"bench", "components", "kubeflow", "pipeline", "trainer"}
    others = {"apache_beam", "kfp", "ml_metadata", "pydantic", "tensorflow_transform", "tfx"}
    found_by_tensorflow = {"keras", "tf_keras", "h5py", "scipy"}
    assert not {name.partition(".")[0] for name in loaded} & (rooms | others | found_by_tensorflow)


def test_the_server_starts_without_pyplot_and_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    config = tmp_path / "bad.config"
    config.write_text("no { such")
    program = (
        "import sys\nfrom serving.cli import serve\n"
        "try:\n    serve(['--model-config-file', sys.argv[1]])\n"
        "except SystemExit as end:\n    assert end.code == 2\n"
        "assert 'tensorflow' in sys.modules\n"
        "assert not [name for name in sys.modules if name.startswith('matplotlib')]\n"
        "import matplotlib.figure"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_HOME"}
    subprocess.run(
        [sys.executable, "-c", program, config], check=True, env=environment | {"HOME": str(home)}
    )
    assert not list(home.glob(".keras"))


class Authority:
    """Signs certificates for the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = self._write("ca", self.name, self.key, is_authority=True)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a server at 127.0.0.1, or of a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = self._write(name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
        key_path = self.folder / f"{name}.key"
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return path, key_path

    def _write(
        self, name: str, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool = False
    ) -> Path:
        now = datetime.now(UTC)
        # Since Python 3.13 a client looks at all that RFC 5280 asks for.
        usage = x509.KeyUsage(True, False, False, False, False, is_authority, is_authority, False, False)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        path = self.folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


def ask(connection: http.client.HTTPConnection) -> Any:
    """Have 2 halved, over a connection."""
    connection.request("POST", f"{MODEL}:predict", b'{"instances": [2.0]}')
    return json.loads(connection.getresponse().read())


def test_mutual_tls_on_both_ports(version: Path, tmp_path: Path) -> None:
    shutil.copytree(version, tmp_path / "m" / "1")
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    client_certificate, client_key = authority.issue("client")
    arguments = ["--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", authority.certificate]
    with running(tmp_path / "m", tmp_path, *map(str, arguments)) as server:
        context = ssl.create_default_context(cafile=str(authority.certificate))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", server.rest_port, context=context, timeout=CALL_S
        )
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(connection)
        context.load_cert_chain(client_certificate, client_key)
        connection = http.client.HTTPSConnection(
            "127.0.0.1", server.rest_port, context=context, timeout=CALL_S
        )
        assert ask(connection) == {"predictions": [3.0]}
        connection.close()

        roots = authority.certificate.read_bytes()
        address = f"127.0.0.1:{server.grpc_port}"
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(roots)) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            with pytest.raises(grpc.RpcError):
                stub.Predict(predict_request([2.0]), 3.0)
        credentials = grpc.ssl_channel_credentials(
            roots, client_key.read_bytes(), client_certificate.read_bytes()
        )
        with grpc.secure_channel(address, credentials) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            assert list(stub.Predict(predict_request([2.0]), CALL_S).outputs["y"].float_val) == [3.0]
