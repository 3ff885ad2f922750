"""The client's gRPC transport: arrays to protos and back, one channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from numpy.typing import ArrayLike, NDArray

from serving import stubs
from serving.client import Target, Tls
from serving.errors import Code, ServingError

# NumPy's name of a type: TensorFlow's, and the field of TensorProto that holds its values.
_TYPES = {
    "bool": ("DT_BOOL", "bool_val"),
    "float32": ("DT_FLOAT", "float_val"),
    "float64": ("DT_DOUBLE", "double_val"),
    "int8": ("DT_INT8", "int_val"),
    "int16": ("DT_INT16", "int_val"),
    "int32": ("DT_INT32", "int_val"),
    "int64": ("DT_INT64", "int64_val"),
    "uint8": ("DT_UINT8", "int_val"),
    "uint16": ("DT_UINT16", "int_val"),
    "uint32": ("DT_UINT32", "uint32_val"),
    "uint64": ("DT_UINT64", "uint64_val"),
}
_BY_ENUM = {stubs.types_pb2.DataType.Value(name): (dtype, field) for dtype, (name, field) in _TYPES.items()}

_OPTIONS = (
    # Python's own limit is 4 MB; TF Serving has none below 2 GB.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Shorter than the client's pauses between attempts, so that each attempt connects anew.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class GrpcTransport:
    """PredictionService and ModelService on one channel."""

    def __init__(self, host: str, port: int, tls: Tls | None) -> None:
        """Open the channel; it connects with the first call.

        Raises:
            OSError: for a TLS file that cannot be read.
        """
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if tls is None:
            self._channel = grpc.insecure_channel(self._address, options=_OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(
                *(file and file.read_bytes() for file in (tls.ca, tls.key, tls.certificate))
            )
            self._channel = grpc.secure_channel(self._address, credentials, options=_OPTIONS)
        self._prediction = stubs.prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model = stubs.model_service_pb2_grpc.ModelServiceStub(self._channel)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def predict(
        self, target: Target, inputs: Mapping[str, ArrayLike], signature: str, timeout_s: float
    ) -> tuple[dict[str, NDArray], int | None]:
        """As Transport.predict."""
        request = stubs.predict_pb2.PredictRequest(model_spec=_spec(target, signature))
        for name, values in inputs.items():
            request.inputs[name].CopyFrom(to_proto(values))
        response = self._call(self._prediction.Predict, request, timeout_s)
        outputs = {name: to_array(tensor) for name, tensor in response.outputs.items()}
        spec = response.model_spec
        return outputs, spec.version.value if spec.HasField("version") else None

    def status(self, target: Target, timeout_s: float) -> dict[str, Any]:
        """As Transport.status."""
        request = stubs.get_model_status_pb2.GetModelStatusRequest(model_spec=_spec(target))
        return _json(self._call(self._model.GetModelStatus, request, timeout_s))

    def metadata(self, target: Target, timeout_s: float) -> dict[str, Any]:
        """As Transport.metadata."""
        request = stubs.get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=_spec(target), metadata_field=["signature_def"]
        )
        response = self._call(self._prediction.GetModelMetadata, request, timeout_s)
        signatures = stubs.get_model_metadata_pb2.SignatureDefMap()
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


def to_proto(values: ArrayLike) -> Any:
    """A TensorProto of an array: numbers of a type that NumPy knows, or bytes.

    Raises:
        ValueError: for another type.
    """
    array = np.asarray(values)
    proto = stubs.tensor_pb2.TensorProto()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if array.dtype.kind in "SO":
        proto.dtype = stubs.types_pb2.DT_STRING
        # Not from the array: NumPy cuts trailing zero bytes off the strings of its type S.
        strings = np.asarray(values, object).ravel()
        proto.string_val.extend(strings)
    elif array.dtype.name in _TYPES:
        proto.dtype = stubs.types_pb2.DataType.Value(_TYPES[array.dtype.name][0])
        proto.tensor_content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    else:
        raise ValueError(f"no tensor can be made of values of type {array.dtype}")
    return proto


def to_array(proto: Any) -> NDArray:
    """The array of a TensorProto; strings as an object array of bytes.

    Raises:
        ServingError: UNIMPLEMENTED for a type that NumPy does not know.
    """
    shape = tuple(dimension.size for dimension in proto.tensor_shape.dim)
    if proto.dtype == stubs.types_pb2.DT_STRING:
        strings = np.empty(len(proto.string_val), object)
        strings[:] = list(proto.string_val)
        return strings.reshape(shape)
    if proto.dtype not in _BY_ENUM:
        name = stubs.types_pb2.DataType.Name(proto.dtype)
        raise ServingError(Code.UNIMPLEMENTED, f"the answer has a tensor of type {name}")
    dtype, field = _BY_ENUM[proto.dtype]
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, np.dtype(dtype).newbyteorder("<")).reshape(shape)
    values = np.array(getattr(proto, field), dtype)
    if len(values) < np.prod(shape):  # equal values at the end are written once
        last = values[-1] if len(values) else 0
        values = np.pad(values, (0, int(np.prod(shape)) - len(values)), constant_values=last)
    return values.reshape(shape)


def _spec(target: Target, signature: str = "") -> Any:
    spec = stubs.model_pb2.ModelSpec(name=target.model, signature_name=signature)
    if target.version is not None:
        spec.version.value = target.version
    elif target.label is not None:
        spec.version_label = target.label
    return spec


def _json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
