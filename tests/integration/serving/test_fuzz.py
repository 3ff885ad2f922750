"""Thousands of malformed requests by REST and gRPC, then good ones: the server lives, and answers each as a
fault of the client's."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from tests.integration.serving.conftest import CALL_S
from tests.integration.serving.model_server import Server, running
from tests.unit.serving import half_plus_two

SEED = 20260101
REST_REQUESTS, RAW_CONNECTIONS, GRPC_REQUESTS = 5000, 300, 5000
# What a client may be told: never a 500, whatever it sends.
CLIENT_ERRORS = {400, 404, 408, 413, 429, 501}
CLIENT_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
SIGNATURES = [
    "",
    "pair",
    "grid",
    "text",
    "flag",
    "integers",
    "total",
    "any_rank",
    "regress_x_to_y",
    "convolution",
    "\0",
]
METHODS = ["Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"]


class Convolution(half_plus_two.HalfPlus):
    """half_plus_two with what wrong ranks abort a process in, and an image decoder."""

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, "image")])
    def convolution(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.nn.conv2d(image, tf.ones([3, 3, 1, 4]), 1, "SAME")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def decode(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        sizes = tf.map_fn(
            lambda each: tf.shape(tf.io.decode_png(each)), image_bytes, fn_output_signature=tf.int32
        )
        return {"size": sizes}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("fuzz")
    module = Convolution(2.0)
    names = ("pair", "grid", "text", "flag", "integers", "total", "any_rank", "convolution", "decode")
    signatures = {name: getattr(module, name) for name in names}
    signatures |= {"serving_default": module.predict, "regress_x_to_y": module.regress}
    tf.saved_model.save(module, str(folder / "m" / "1"), signatures=signatures)
    shutil.copytree(folder / "m" / "1", folder / "m" / "2")
    with running(folder / "m", folder, "--max-request-mb", "1", "--arrival-timeout", "2") as server:
        yield server
        assert server.process.poll() is None


class Noise:
    """Requests that are nearly right."""

    def __init__(self) -> None:
        self.random = random.Random(SEED)

    def path(self) -> str:
        """Half of them go to the model."""
        if self.random.random() < 0.6:
            return "/v1/models/m:predict"
        parts = [
            "/v1/models",
            "/m",
            "/versions/1",
            "/versions/9",
            "/labels/x",
            ":predict",
            ":classify",
            ":regress",
        ]
        parts += ["/metadata", "/%00%ff", "//", ":", "/v1", "?a=b", "/../..", "/monitoring"]
        return "/v1/models" + "".join(self.random.choices(parts, k=self.random.randrange(4)))

    def value(self, depth: int = 0) -> Any:
        """Any JSON."""
        choices: list[Any] = [
            None,
            True,
            0,
            -1,
            1.5,
            2**63,
            -(2**70),
            1e308,
            float("nan"),
            "",
            "text",
            "\ud800",
            {"b64": "AAAA"},
            {"b64": "?"},
            {"b64": 1},
            {"b64": "iVBORw0KGgoAAAANSUhEUgAB"},
        ]
        if depth > 4 or self.random.random() < 0.4:
            return self.random.choice(choices)
        count = self.random.randrange(4)
        if self.random.random() < 0.7:
            return [self.value(depth + 1) for _ in range(count)]
        names = ["x", "a", "b", "grid", "text", "image", "image_bytes", "inputs", "b64", ""]
        return {self.random.choice(names): self.value(depth + 1) for _ in range(count)}

    def body(self) -> bytes:
        """JSON of the right form with wrong values, or damaged."""
        keys = ["instances", "inputs", "examples", "context", "signature_name", "values"]
        document = {self.random.choice(keys): self.value() for _ in range(self.random.randrange(1, 3))}
        if self.random.random() < 0.7:
            document["signature_name"] = self.random.choice([*SIGNATURES, "decode", 7])
        body = bytearray(json.dumps(document).encode())
        while self.random.random() < 0.3:
            at = self.random.randrange(len(body) + 1)
            body[at : at + self.random.randrange(3)] = self.random.randbytes(self.random.randrange(3))
        return bytes(body)

    def tensor(self) -> tf.make_tensor_proto:
        """A TensorProto: well-formed of any type and rank, or bent."""
        shape = [self.random.choice([0, 1, 2, 8, 3]) for _ in range(self.random.randrange(6))]
        kind: Any = self.random.choice(
            [np.float32, np.int64, np.uint8, np.bool_, np.float64, np.int32, "text", "image"]
        )
        if isinstance(kind, str):
            content = b"\x89PNG\r\n\x1a\n" if kind == "image" else b""
            array = np.full(shape, content + self.random.randbytes(30), object)
        else:
            array = np.ones(shape, np.dtype(kind))
        proto = tf.make_tensor_proto(array)
        if self.random.random() < 0.4:
            proto.tensor_shape.dim.add().size = self.random.choice([-1, 2**40, 3])
        if self.random.random() < 0.2:
            proto.dtype = self.random.choice([0, 1, 7, 20, 21, 101])
        if self.random.random() < 0.2:
            proto.tensor_content = self.random.randbytes(self.random.randrange(9))
        return proto

    def message(self, method: str) -> bytes:
        """A request of gRPC, serialized; sometimes with bits turned."""
        request: Any
        if method == "Predict":
            request = predict_pb2.PredictRequest()
            names = ["x", "a", "b", "grid", "text", "flag", "n", "image", "image_bytes", "inputs", ""]
            for _ in range(self.random.randrange(3)):
                request.inputs[self.random.choice(names)].CopyFrom(self.tensor())
            self.spec(request.model_spec)
        elif method == "MultiInference":
            request = inference_pb2.MultiInferenceRequest()
            for _ in range(self.random.randrange(3)):
                task = request.tasks.add(method_name=self.random.choice(["", "tensorflow/serving/regress"]))
                self.spec(task.model_spec)
        else:
            kinds = {"Classify": classification_pb2.ClassificationRequest}
            request = kinds.get(method, regression_pb2.RegressionRequest)()
            self.spec(request.model_spec)
            if self.random.random() < 0.7:
                feature = request.input.example_list.examples.add().features.feature["x"]
                feature.bytes_list.value.append(self.random.randbytes(5))
        content = bytearray(request.SerializeToString())
        while content and self.random.random() < 0.3:
            content[self.random.randrange(len(content))] = self.random.randrange(256)
        return bytes(content)

    def spec(self, spec: Any) -> None:
        """The model, mostly."""
        spec.name = self.random.choice(["m"] * 6 + ["", "\0", "x" * 1000])
        spec.signature_name = self.random.choice([*SIGNATURES, "decode"]).replace("\0", "nope")
        if self.random.random() < 0.1:
            spec.version.value = self.random.choice([-1, 0, 2, 2**63 - 1])


def check_it_lives(server: Server) -> None:
    """A good request by each way."""
    assert server.process.poll() is None
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=CALL_S)
    connection.request("POST", "/v1/models/m:predict", b'{"instances": [2.0]}')
    assert json.loads(connection.getresponse().read()) == {"predictions": [3.0]}
    connection.close()
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "convolution"
    request.inputs["image"].CopyFrom(tf.make_tensor_proto(np.ones((1, 8, 8, 1), np.float32)))
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert max(stub.Predict(request, CALL_S).outputs["y"].float_val) == 9.0


def test_malformed_rest_requests(server: Server) -> None:
    noise = Noise()
    seen: dict[int, int] = {}
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=CALL_S)
    for _ in range(REST_REQUESTS):
        method = noise.random.choice(["POST"] * 8 + ["GET", "PUT", "DELETE", "PATCH"])
        path, body = noise.path(), noise.body()
        connection.request(method, path, body)
        response = connection.getresponse()
        content = response.read()
        seen[response.status] = seen.get(response.status, 0) + 1
        assert response.status in CLIENT_ERRORS | {200, 405}, (path, body, content)
        if path.startswith("/v1/") and response.status in CLIENT_ERRORS:
            assert json.loads(content)["error"], (path, body)
    connection.close()
    assert seen[400] > REST_REQUESTS / 2
    check_it_lives(server)


def test_garbage_at_both_ports(server: Server) -> None:
    noise = Noise()
    heads = [
        b"",
        b"POST /v1/models/m:predict HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1",
    ]
    for number in range(RAW_CONNECTIONS):
        port = server.grpc_port if number % 2 else server.rest_port
        with socket.create_connection(("127.0.0.1", port), CALL_S) as connection:
            connection.sendall(
                noise.random.choice(heads) + noise.random.randbytes(noise.random.randrange(300))
            )
    check_it_lives(server)


def test_malformed_grpc_requests(server: Server) -> None:
    noise = Noise()
    seen: dict[grpc.StatusCode, int] = {}
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        for _ in range(GRPC_REQUESTS):
            method = noise.random.choice(METHODS)
            call = channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
            message = noise.message(method)
            try:
                call(message, timeout=CALL_S)
                code = grpc.StatusCode.OK
            except grpc.RpcError as error:
                code, details = error.code(), error.details()
                # What is no message at all fails inside of gRPC, which calls that an internal error.
                if code is grpc.StatusCode.INTERNAL and "deserializing request" in details:
                    code = grpc.StatusCode.INVALID_ARGUMENT
                assert code in CLIENT_CODES, (method, message, details)
            seen[code] = seen.get(code, 0) + 1
    assert seen[grpc.StatusCode.INVALID_ARGUMENT] > GRPC_REQUESTS / 3
    check_it_lives(server)
