"""Messages of TF Serving's configuration files that the package tensorflow-serving-api does not ship.

Names, numbers and types of their fields are those of TF Serving's session_bundle_config.proto,
ssl_config.proto and monitoring_config.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

PACKAGE = "tensorflow.serving"
_KINDS = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"bool": _KINDS.TYPE_BOOL, "string": _KINDS.TYPE_STRING, "int64": _KINDS.TYPE_INT64}

_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "BatchingParameters": {
        "max_batch_size": (1, ".google.protobuf.Int64Value"),
        "batch_timeout_micros": (2, ".google.protobuf.Int64Value"),
        "max_enqueued_batches": (3, ".google.protobuf.Int64Value"),
        "num_batch_threads": (4, ".google.protobuf.Int64Value"),
        "thread_pool_name": (5, ".google.protobuf.StringValue"),
        "allowed_batch_sizes": (6, "repeated int64"),
        "pad_variable_length_inputs": (7, "bool"),
        "enable_large_batch_splitting": (8, ".google.protobuf.BoolValue"),
        "max_execution_batch_size": (9, ".google.protobuf.Int64Value"),
    },
    "SSLConfig": {
        "server_key": (1, "string"),
        "server_cert": (2, "string"),
        "custom_ca": (3, "string"),
        "client_verify": (4, "bool"),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, f".{PACKAGE}.PrometheusConfig")},
}


def _pool() -> descriptor_pool.DescriptorPool:
    """A pool of its own: the default one may get the real files from another module."""
    file = descriptor_pb2.FileDescriptorProto(
        name="serving/config.proto",
        package=PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            word = kind.removeprefix("repeated ")
            label = _KINDS.LABEL_REPEATED if word != kind else _KINDS.LABEL_OPTIONAL
            if word in _SCALARS:
                message.field.add(name=field, number=number, label=label, type=_SCALARS[word])
            else:
                message.field.add(
                    name=field, number=number, label=label, type=_KINDS.TYPE_MESSAGE, type_name=word
                )
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    pool.Add(file)
    return pool


_POOL = _pool()


def new(name: str) -> Any:
    """An empty message: BatchingParameters, SSLConfig or MonitoringConfig."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))()
