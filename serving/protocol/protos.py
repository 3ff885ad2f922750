"""TF Serving's protos and gRPC stubs, and TensorFlow's protos, without TensorFlow.

Importing them in the usual way imports all of TensorFlow: 3.4 s for messages that need none of it. Here the
package `tensorflow` is an empty shell while they are imported, 0.02 s, and is forgotten after that: a later
`import tensorflow` gets the real one. The messages are of the same classes for both, since protobuf keeps
one for each.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _shell_of_tensorflow() -> Iterator[None]:
    spec = importlib.util.find_spec("tensorflow") if "tensorflow" not in sys.modules else None
    if spec is None:  # imported already, so there is nothing to save
        yield
        return
    shell = types.ModuleType("tensorflow")
    shell.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["tensorflow"] = shell
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]:
            del sys.modules[name]


with _shell_of_tensorflow():
    from tensorflow.core.example import example_pb2
    from tensorflow.core.framework import graph_pb2, tensor_pb2, types_pb2
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
    from tensorflow.tsl.profiler.protobuf import xplane_pb2
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        input_pb2,
        model_management_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_log_pb2,
        prediction_service_pb2_grpc,
        regression_pb2,
    )
    from tensorflow_serving.config import model_server_config_pb2

__all__ = [
    "classification_pb2",
    "config_pb2",
    "example_pb2",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "graph_pb2",
    "inference_pb2",
    "input_pb2",
    "meta_graph_pb2",
    "model_management_pb2",
    "model_pb2",
    "model_server_config_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
    "regression_pb2",
    "tensor_pb2",
    "types_pb2",
    "xplane_pb2",
]
