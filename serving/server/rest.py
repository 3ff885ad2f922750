"""TF Serving's REST API: HTTP and JSON to the service's calls and back, and nothing else."""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from serving.models.batching import Caller
from serving.protocol import json_examples, json_tensors
from serving.protocol.errors import Code, ServingError, invalid
from serving.protocol.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)
from serving.server.service import SIGNATURE_DEF, Service
from serving.server.telemetry.access_log import Record, Recorder
from serving.server.telemetry.metrics import CONTENT_TYPE

PREDICTION = re.compile(
    r"/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:(classify|regress|predict)",
    re.IGNORECASE,
)
STATUS = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:/(metadata))?", re.IGNORECASE
)
METRICS_PATH = "/monitoring/prometheus/metrics"
WEB = Path(__file__).parent.parent / "web"
MAX_VERSION = 2**63 - 1

HTTP_STATUS = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}


@dataclass(frozen=True)
class Limits:
    """What a client may ask of the REST API."""

    max_body_bytes: int = 256 * 2**20  # unpacked
    arrival_timeout_s: float = 10.0  # for a head to arrive, and for a body
    answer_timeout_s: float = 30.0  # as TF Serving's --rest_api_timeout_in_ms
    max_in_flight: int = 1024  # more requests at a time are refused
    threads: int = 256  # that work on requests; made when they are needed


class HttpError(ServingError):
    """A failure of HTTP itself, which TF Serving has no code for; the connection is closed after it."""

    def __init__(self, status: int, code: Code, message: str) -> None:
        """Keep the HTTP status beside what the metrics count."""
        super().__init__(code, message)
        self.status = status


class RestApp:
    """The ASGI application."""

    def __init__(
        self,
        service: Service,
        recorder: Recorder,
        limits: Limits | None = None,
        web: Path = WEB,
    ) -> None:
        """Put the parts together.

        Args:
            service: answers.
            recorder: keeps count.
            limits: what a client may ask.
            web: a folder of static files, served at `/` when it is there.
        """
        self._service = service
        self._recorder = recorder
        self._limits = limits or Limits()
        pages: list[BaseRoute] = [Route("/samples.json", self._samples)]
        if web.is_dir():
            pages.append(Mount("/", StaticFiles(directory=web, html=True)))
        self._threads = ThreadPoolExecutor(self._limits.threads, "rest")
        self._in_flight = 0
        self._pages = Starlette(routes=pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        if path.lower().startswith("/v1/"):
            response = await self._api(scope, receive)
        elif path == METRICS_PATH:
            response = Response(self._recorder.metrics.page(), media_type=CONTENT_TYPE)
        else:
            await self._pages(scope, receive, send)
            return
        await response(scope, receive, send)

    async def _api(self, scope: Scope, receive: Receive) -> Response:
        method = scope["method"]
        path = scope["raw_path"].split(b"?")[0].decode("latin-1")
        try:
            if self._in_flight >= self._limits.max_in_flight:
                raise ServingError(Code.RESOURCE_EXHAUSTED, "too many requests in flight")
            self._in_flight += 1
            try:
                body = await self._body(scope, receive) if method == "POST" else b""
                peer = ":".join(map(str, scope.get("client") or ()))
                # In a thread of its own: what is big takes long to read, and waiting for a batch is
                # waiting.
                content = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._answer, method, path, body, peer
                )
            finally:
                self._in_flight -= 1
            return Response(content, media_type="application/json")
        except HttpError as error:
            return _json(error.status, {"error": error.message}, close=True)
        except ServingError as error:
            return _json(HTTP_STATUS.get(error.code, 500), {"error": error.message})

    def _answer(self, method: str, path: str, body: bytes, peer: str) -> bytes:
        """The body of the answer.

        Raises:
            ServingError: of any kind.
        """
        caller = Caller(time.monotonic() + self._limits.answer_timeout_s)
        pattern = {"POST": PREDICTION, "GET": STATUS}.get(method)
        match = pattern.fullmatch(path) if pattern else None
        kind = ((match.group(4) if match else None) or "status").lower()
        with self._recorder.request("REST", kind.capitalize()) as record:
            record.peer, record.request_bytes = peer, len(body)
            if match is None:
                raise invalid(f"Malformed request: {method} {path}")
            spec = _model_spec(match)
            record.model = spec.name
            if method == "GET":
                return self._about(spec, kind).encode()
            return self._infer(spec, kind, body, record, caller)

    def _infer(
        self, spec: model_pb2.ModelSpec, kind: str, body: bytes, record: Record, caller: Caller
    ) -> bytes:
        if not body:
            raise invalid("JSON Parse error: The document is empty")
        document = json_tensors.parse(body)
        spec.signature_name = record.signature = json_tensors.signature_name(document)
        if kind == "predict":
            inputs, by_row = json_tensors.read_inputs(document, self._service.inputs_of(spec))
            prediction = self._service.predict(spec, inputs, (), caller)
            record.version = str(prediction.model_spec.version.value)
            return json_tensors.predictions(prediction.outputs, by_row)
        if kind == "classify":
            classify = classification_pb2.ClassificationRequest(
                model_spec=spec, input=json_examples.read(document)
            )
            classified = self._service.classify(classify, caller)
            record.version = str(classified.model_spec.version.value)
            return json_examples.classifications(classified.result)
        regress = regression_pb2.RegressionRequest(model_spec=spec, input=json_examples.read(document))
        regressed = self._service.regress(regress, caller)
        record.version = str(regressed.model_spec.version.value)
        return json_examples.regressions(regressed.result)

    def _about(self, spec: model_pb2.ModelSpec, kind: str) -> str:
        """Status or metadata, in protobuf's JSON."""
        if not spec.name:
            raise invalid("Missing model name in request.")
        if kind == "status":
            status = self._service.status(get_model_status_pb2.GetModelStatusRequest(model_spec=spec))
            return json_format.MessageToJson(status, always_print_fields_with_no_presence=True, indent=1)
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=spec, metadata_field=[SIGNATURE_DEF]
        )
        metadata = self._service.metadata(request)
        definitions = get_model_metadata_pb2.SignatureDefMap()
        metadata.metadata[SIGNATURE_DEF].Unpack(definitions)
        parts = [
            json_format.MessageToJson(
                message,
                always_print_fields_with_no_presence=True,
                preserving_proto_field_name=True,
                indent=1,
            )
            for message in (metadata.model_spec, definitions)
        ]
        return f'{{\n"model_spec":{parts[0]},\n"metadata": {{"signature_def": {parts[1]}}}\n}}\n'

    async def _samples(self, request: Request) -> Response:
        del request
        samples = await asyncio.get_running_loop().run_in_executor(self._threads, self._service.samples)
        if samples is None:
            return Response(status_code=404)
        return Response(samples, media_type="application/json")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The request's body, unpacked, and never more than the limit of it."""
        limit = self._limits.max_body_bytes
        encodings = [value for name, value in scope["headers"] if name == b"content-encoding"]
        packed = any(b"gzip" in value.lower() for value in encodings)
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if packed else None
        chunks, size = [], 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.arrival_timeout_s
        while True:
            try:
                message = await asyncio.wait_for(receive(), deadline - loop.time())
            except TimeoutError:
                raise HttpError(
                    408, Code.DEADLINE_EXCEEDED, "the request's body did not arrive in time"
                ) from None
            if message["type"] == "http.disconnect":
                raise ServingError(Code.CANCELLED, "the client has gone")
            chunk = message.get("body", b"")
            if unpack is not None:
                try:
                    chunk = unpack.decompress(chunk, limit - size + 1)
                except zlib.error as error:
                    raise invalid(f"Failed to decompress the gzip body: {error}") from None
            size += len(chunk)
            if size > limit:
                raise HttpError(
                    413, Code.RESOURCE_EXHAUSTED, f"request body is over the limit of {limit} bytes"
                )
            chunks.append(chunk)
            if not message.get("more_body"):
                if unpack is not None and not unpack.eof:
                    raise invalid("Failed to decompress the gzip body: it ends too early")
                return b"".join(chunks)


def _model_spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    name, version, label = match.group(1), match.group(2), match.group(3)
    spec = model_pb2.ModelSpec(name=unquote(name or "", errors="replace"))
    if version is not None:
        if int(version[:20]) > MAX_VERSION or len(version) > 19:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    if label is not None:
        spec.version_label = unquote(label, errors="replace")
    return spec


def _json(status: int, document: Mapping[str, Any], *, close: bool = False) -> Response:
    headers = {"connection": "close"} if close else {}
    return Response(
        json_tensors.dump(document), status_code=status, media_type="application/json", headers=headers
    )
