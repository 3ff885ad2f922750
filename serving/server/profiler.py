"""TensorFlow's ProfilerService, as TF Serving has it: TensorBoard's "Capture profile" asks it for a trace.

The trace is written by the server, where the request says, as the protocol has it. The installed TensorFlow
has no Python messages of this service, so the fields that are read are described here (from its
profiler_service.proto); and it ignores the options that its Python function for a trace takes, so others
than the usual ones are refused.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from serving.models.runtime import tf
from serving.protocol.protos import xplane_pb2

NAME = "tensorflow.ProfilerService"
MAX_DURATION_MS = 600_000
TRACER_LEVELS = (2, 0)  # of the host and of Python

_Field = descriptor_pb2.FieldDescriptorProto
_MESSAGES: dict[str, list[tuple[str, int, int]]] = {
    "ProfileOptions": [
        ("host_tracer_level", 2, _Field.TYPE_UINT32),
        ("python_tracer_level", 4, _Field.TYPE_UINT32),
    ],
    "ProfileRequest": [
        ("duration_ms", 1, _Field.TYPE_UINT64),
        ("opts", 4, _Field.TYPE_MESSAGE),
        ("repository_root", 5, _Field.TYPE_STRING),
        ("session_id", 6, _Field.TYPE_STRING),
        ("host_name", 7, _Field.TYPE_STRING),
    ],
    "ProfileResponse": [("empty_trace", 7, _Field.TYPE_BOOL)],
}


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="tsl/profiler/protobuf/profiler_service.proto", package="tensorflow", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            type_name = ".tensorflow.ProfileOptions" if kind == _Field.TYPE_MESSAGE else None
            message.field.add(
                name=field, number=number, type=kind, type_name=type_name, label=_Field.LABEL_OPTIONAL
            )
    service = file.service.add(name="ProfilerService")
    service.method.add(
        name="Profile", input_type=".tensorflow.ProfileRequest", output_type=".tensorflow.ProfileResponse"
    )
    return file


# A pool of its own: another version of TensorFlow may bring the messages to the default one.
FILE = descriptor_pool.DescriptorPool().AddSerializedFile(_file().SerializeToString())
ProfileRequest, ProfileResponse = (
    message_factory.GetMessageClass(FILE.message_types_by_name[name])
    for name in ("ProfileRequest", "ProfileResponse")
)


class Profiler:
    """One trace at a time: there is one tracer in a process."""

    def __init__(self) -> None:
        """Nothing is traced yet."""
        self._tracing = threading.Lock()

    def add_to(self, server: grpc.Server) -> None:
        """Answer ProfilerService's Profile."""
        method = grpc.unary_unary_rpc_method_handler(
            self.profile, ProfileRequest.FromString, ProfileResponse.SerializeToString
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, {"Profile": method}),))

    def profile(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Trace what the process does for `duration_ms`, and write `<host_name>.xplane.pb`.

        It goes to the folder `session_id` in `repository_root`, on any of TensorFlow's file systems.
        """
        if not request.repository_root:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "repository_root is missing: where to write to")
        host = request.host_name.replace(":", "_")
        for name in (request.session_id, host):
            if not name or Path(name).name != name:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{name!r} is no name of a file")
        if not 0 < request.duration_ms <= MAX_DURATION_MS:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"duration_ms is 1 to {MAX_DURATION_MS}, not {request.duration_ms}",
            )
        levels = request.opts.host_tracer_level, request.opts.python_tracer_level
        if request.HasField("opts") and levels != TRACER_LEVELS:
            usual = "host_tracer_level 2 and python_tracer_level 0"
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"this server traces with {usual} alone, not {levels}"
            )
        if not self._tracing.acquire(blocking=False):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "another trace is being taken")
        try:
            trace = self._trace(request, context)
        finally:
            self._tracing.release()
        space = xplane_pb2.XSpace.FromString(trace)
        if not any(line.events for plane in space.planes for line in plane.lines):
            return ProfileResponse(empty_trace=True)
        folder = f"{request.repository_root}/{request.session_id}"
        try:
            tf.io.gfile.makedirs(folder)
            with tf.io.gfile.GFile(f"{folder}/{host}.xplane.pb", "wb") as file:
                file.write(trace)
        except tf.errors.OpError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{folder}: {error.message}")
        return ProfileResponse()

    def _trace(self, request: Any, context: grpc.ServicerContext) -> bytes:
        """A serialized XSpace; ends early when the client has gone."""
        ended = threading.Event()
        context.add_callback(ended.set)
        with tempfile.TemporaryDirectory() as folder:
            tf.profiler.experimental.start(folder)
            ended.wait(request.duration_ms / 1e3)
            tf.profiler.experimental.stop()
            return next(Path(folder).rglob("*.xplane.pb")).read_bytes()
