"""What gRPC reflection says of the services: their methods, and every message in them.

The files of tensorflow-serving-api that describe the services were generated for an older protobuf, and the
installed one cannot import them; so they are described again here, from the messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from serving.protocol.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)
from serving.server import profiler

PACKAGE = "tensorflow.serving"
PREDICTION_SERVICE = f"{PACKAGE}.PredictionService"
MODEL_SERVICE = f"{PACKAGE}.ModelService"
NAMES = (PREDICTION_SERVICE, MODEL_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)

# By file: the service, and of each method the request and the response.
_FILES: Mapping[str, tuple[str, Mapping[str, tuple[Any, Any]]]] = {
    "tensorflow_serving/apis/prediction_service.proto": (
        "PredictionService",
        {
            "Classify": (
                classification_pb2.ClassificationRequest,
                classification_pb2.ClassificationResponse,
            ),
            "Regress": (regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
            "Predict": (predict_pb2.PredictRequest, predict_pb2.PredictResponse),
            "MultiInference": (inference_pb2.MultiInferenceRequest, inference_pb2.MultiInferenceResponse),
            "GetModelMetadata": (
                get_model_metadata_pb2.GetModelMetadataRequest,
                get_model_metadata_pb2.GetModelMetadataResponse,
            ),
        },
    ),
    "tensorflow_serving/apis/model_service.proto": (
        "ModelService",
        {
            "GetModelStatus": (
                get_model_status_pb2.GetModelStatusRequest,
                get_model_status_pb2.GetModelStatusResponse,
            ),
            "HandleReloadConfigRequest": (
                model_management_pb2.ReloadConfigRequest,
                model_management_pb2.ReloadConfigResponse,
            ),
        },
    ),
}


class Descriptions:
    """A pool of the descriptions, as grpcio-reflection asks it; a method can be looked up too."""

    def __init__(self) -> None:
        """Collect them, in a pool of its own: the default one may get the original files."""
        self._pool = descriptor_pool.DescriptorPool()
        self._added: set[str] = set()
        for descriptor in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR, profiler.FILE):
            self._add(descriptor)
        for name, (service, methods) in _FILES.items():
            file = descriptor_pb2.FileDescriptorProto(name=name, package=PACKAGE, syntax="proto3")
            description = file.service.add(name=service)
            for method, messages in methods.items():
                request, response = (message.DESCRIPTOR for message in messages)
                description.method.add(
                    name=method, input_type=f".{request.full_name}", output_type=f".{response.full_name}"
                )
                for message in (request, response):
                    self._add(message.file)
                    if message.file.name not in file.dependency:
                        file.dependency.append(message.file.name)
            self._pool.Add(file)

    def _add(self, file: FileDescriptor) -> None:
        """A file, after those that it depends on."""
        if file.name in self._added:
            return
        self._added.add(file.name)
        for dependency in file.dependencies:
            self._add(dependency)
        copy = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(copy)
        self._pool.Add(copy)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 (protobuf's name)
        """Of a message, a service, or one of its methods, which protobuf's own does not find.

        Raises:
            KeyError: where there is none.
        """
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file

    def __getattr__(self, name: str) -> Any:
        """The rest is the pool's."""
        return getattr(self._pool, name)
