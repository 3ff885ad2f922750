"""The client's gRPC transport: arrays to protos and back, one channel."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from numpy.typing import ArrayLike, NDArray

from serving.client.types import Target, Tls
from serving.protocol import protos, tensors
from serving.protocol.errors import Code, ServingError

_OPTIONS = (
    # Python's own limit is 4 MB; TF Serving has none below 2 GB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Shorter than the client's pauses between attempts, so that each attempt connects again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
# gRPC would send even what is for this machine to the proxy that the environment names.
_NO_PROXY = (("grpc.enable_http_proxy", 0),)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class GrpcTransport:
    """PredictionService and ModelService on one channel."""

    def __init__(self, host: str, port: int, tls: Tls | None) -> None:
        """Open the channel; it connects with the first call.

        Raises:
            OSError: for a TLS file that cannot be read.
        """
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        options = [*_OPTIONS, *(_NO_PROXY if _is_loopback(host) else ())]
        if tls is None:
            self._channel = grpc.insecure_channel(self._address, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(
                *(file and file.read_bytes() for file in (tls.ca, tls.key, tls.certificate))
            )
            self._channel = grpc.secure_channel(self._address, credentials, options=options)
        self._prediction = protos.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = protos.model_service_pb2_grpc.ModelServiceStub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def predict(
        self, target: Target, inputs: Mapping[str, ArrayLike], signature: str, timeout_s: float
    ) -> tuple[dict[str, NDArray], int | None]:
        """As Transport.predict."""
        request = protos.predict_pb2.PredictRequest(model_spec=_spec(target, signature))
        for name, values in inputs.items():
            _to_proto(values, request.inputs[name])
        response = self._call(self._prediction.Predict, request, timeout_s)
        outputs = {name: tensors.to_array(tensor, name) for name, tensor in response.outputs.items()}
        spec = response.model_spec
        return outputs, spec.version.value if spec.HasField("version") else None

    def status(self, target: Target, timeout_s: float) -> dict[str, Any]:
        """As Transport.status."""
        request = protos.get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(target))
        return _json(self._call(self._model.GetModelStatus, request, timeout_s))

    def metadata(self, target: Target, timeout_s: float) -> dict[str, Any]:
        """As Transport.metadata."""
        request = protos.get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=_spec(target), metadata_field=["signature_def"]
        )
        response = self._call(self._prediction.GetModelMetadata, request, timeout_s)
        signatures = protos.get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        return {
            "model_spec": {"version": response.model_spec.version.value},
            "metadata": {"signature_def": _json(signatures)},
        }

    def _call(self, method: Callable[..., Any], request: Any, timeout_s: float) -> Any:
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            code = Code[error.code().name]
            details = error.details() or ""
            if code is Code.UNAVAILABLE and "connect" in details:
                details = f"no server answers at {self._address} by gRPC ({details.rpartition(': ')[2]})"
            raise ServingError(code, details) from None


def _to_proto(values: ArrayLike, proto: Any) -> None:
    """Write numbers or bytes into a TensorProto.

    Raises:
        ValueError: for values that no tensor can hold.
    """
    array = np.asarray(values)
    if array.dtype.kind == "S":
        # Not from the array: NumPy cuts trailing zero bytes off the strings of its type S.
        array = np.asarray(values, object)
    try:
        tensors.to_proto(array, proto, packed=True)
    except ServingError as error:
        raise ValueError(error.message) from None


def _spec(target: Target, signature: str = "") -> Any:
    spec = protos.model_pb2.ModelSpec(name=target.model, signature_name=signature)
    if target.version is not None:
        spec.version.value = target.version
    elif target.label is not None:
        spec.version_label = target.label
    return spec


def _json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
