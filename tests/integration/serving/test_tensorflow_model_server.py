"""TF Serving's command line, as a process: its ports open when the model answers, its socket too."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from serving.server import profiler
from tests.unit.serving import half_plus_two

WAIT_S = 120.0
MAX_MESSAGE_BYTES = 2000
SERVICE = "tensorflow.serving.PredictionService"


def test_the_first_requests_of_its_documentation(tmp_path: Path) -> None:
    half_plus_two.write(tmp_path / "m" / "00000123", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "grpc.sock"
    command = [
        sys.executable,
        "-m",
        "serving.tensorflow_model_server",
        "--port=0",
        f"--rest_api_port={port}",
    ]
    command += [f"--grpc_socket_path={path}", "--model_name=m", f"--model_base_path={tmp_path / 'm'}"]
    command += [f"--grpc_channel_arguments=grpc.max_receive_message_length={MAX_MESSAGE_BYTES}"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            ends_at = time.monotonic() + WAIT_S
            while True:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
                body = json.dumps({"signature_name": "column", "instances": [1.0, 2.0, 5.0]})
                try:
                    connection.request("POST", "/v1/models/m:predict", body)
                    break
                except ConnectionRefusedError:
                    assert server.poll() is None
                    assert time.monotonic() < ends_at
                    time.sleep(0.1)
            # The first that gets through gets an answer, not 404.
            assert json.loads(connection.getresponse().read()) == {"predictions": [2.5, 3.0, 4.5]}
            connection.close()
            with grpc.insecure_channel(f"unix:{path}") as channel:
                request = predict_pb2.PredictRequest()
                request.model_spec.name = "m"
                request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array([2.0], np.float32)))
                stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
                assert list(stub.Predict(request, WAIT_S).outputs["y"].float_val) == [3.0]
                # The argument counts, over the server's own.
                request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.zeros(MAX_MESSAGE_BYTES, np.float32)))
                with pytest.raises(grpc.RpcError) as refusal:
                    stub.Predict(request, WAIT_S)
                assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert f"vs. {MAX_MESSAGE_BYTES}" in refusal.value.details()
                asked = [
                    reflection_pb2.ServerReflectionRequest(list_services=""),
                    # What ghz and grpcurl ask before a call.
                    reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{SERVICE}.Predict"),
                    reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
                ]
                services, *files = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                    iter(asked)
                )
                names = {service.name for service in services.list_services_response.service}
                assert {SERVICE, "tensorflow.serving.ModelService", "grpc.health.v1.Health"} <= names
                assert profiler.NAME in names  # on, as TF Serving's is
                for answer in files:
                    found = {}
                    for content in answer.file_descriptor_response.file_descriptor_proto:
                        file = descriptor_pb2.FileDescriptorProto.FromString(content)
                        found[file.name] = file
                    assert {name for file in found.values() for name in file.dependency} <= set(found)
                    (service,) = found["tensorflow_serving/apis/prediction_service.proto"].service
                    types = {method.name: method.input_type for method in service.method}
                    assert types["Predict"] == ".tensorflow.serving.PredictRequest"
        finally:
            server.terminate()
            assert server.wait(WAIT_S) == 0
