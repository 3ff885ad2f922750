"""TF Serving's REST API: HTTP and JSON to the service's calls and back, and nothing else."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
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
from serving.server import codings
from serving.server.codings import HttpError
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
MIN_PACKED_BYTES = 1024  # of an answer; a smaller one is one packet anyway
VARY = (b"vary", b"accept-encoding")
# As TF Serving's --rest_api_enable_cors_support.
CORS = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
)

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
    arrival_timeout_s: float = 10.0  # for a head to arrive, and for a body to get on
    answer_timeout_s: float = 30.0  # as TF Serving's --rest_api_timeout_in_ms
    max_in_flight: int = 1024  # more requests at a time are refused
    threads: int = 256  # that work on requests; made when they are needed


@dataclass(frozen=True)
class Call:
    """A request to the API, read."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    body: bytes
    peer: str


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: int
    content: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class RestApp:
    """The ASGI application."""

    def __init__(
        self,
        service: Service,
        recorder: Recorder,
        limits: Limits | None = None,
        web: Path = WEB,
        cors: bool = False,
        metrics_path: str | None = METRICS_PATH,
        metrics_page: Callable[[], bytes] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            service: answers.
            recorder: keeps count.
            limits: what a client may ask.
            web: a folder of static files, served at `/` when it is there.
            cors: whether pages of any origin may read the answers.
            metrics_path: where Prometheus finds the metrics; None: nowhere.
            metrics_page: gives them; None: what the recorder has counted.
        """
        self._service = service
        self._recorder = recorder
        self._limits = limits or Limits()
        self._cors = cors
        self._metrics_page = metrics_page or recorder.metrics.page
        pages: list[BaseRoute] = [
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/samples.json", self._samples),
        ]
        if metrics_path is not None:
            pages.append(Route(metrics_path, self._metrics))
        if web.is_dir():
            pages.append(Mount("/", StaticFiles(directory=web, html=True)))
        self._threads = ThreadPoolExecutor(self._limits.threads, "rest")
        self._in_flight = 0
        self._pages = Starlette(routes=pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        if scope["path"].lower().startswith("/v1/"):
            await self._api(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={"allow": "GET, HEAD, OPTIONS"})(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    async def _api(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers[name] = headers[name] + b", " + value if name in headers else value
        method = scope["method"]
        if method == "OPTIONS" and self._cors:
            await _send(send, Answer(200, b"", CORS))
            return
        try:
            if self._in_flight >= self._limits.max_in_flight:
                raise ServingError(Code.RESOURCE_EXHAUSTED, "too many requests in flight")
            self._in_flight += 1
            try:
                body = await self._body(headers, receive) if method == "POST" else b""
                peer = ":".join(map(str, scope.get("client") or ()))
                call = Call(method, scope["raw_path"].decode("latin-1"), headers, body, peer)
                # In a thread of its own: what is big takes long to read, and waiting for a batch is
                # waiting.
                answer = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._respond, call
                )
            finally:
                self._in_flight -= 1
        except ServingError as error:
            answer = _error(error)
            if b"expect" in headers:  # whether the body comes after all cannot be known
                answer = replace(answer, headers=((b"connection", b"close"),))
        if self._cors:
            answer = replace(answer, headers=(*answer.headers, *CORS))
        await _send(send, answer)

    def _respond(self, call: Call) -> Answer:
        try:
            content = self._answer(call)
        except ServingError as error:
            return _error(error)
        if len(content) < MIN_PACKED_BYTES:
            return Answer(200, content)
        if not codings.accepts_gzip(call.headers.get(b"accept-encoding", b"")):
            return Answer(200, content, (VARY,))
        return Answer(200, codings.pack(content), ((b"content-encoding", b"gzip"), VARY))

    def _answer(self, call: Call) -> bytes:
        """The body of the answer.

        Raises:
            ServingError: of any kind.
        """
        caller = Caller(time.monotonic() + self._limits.answer_timeout_s)
        body = codings.unpack(call.body, call.headers, self._limits.max_body_bytes)
        pattern = {"POST": PREDICTION, "GET": STATUS}.get(call.method)
        match = pattern.fullmatch(call.path) if pattern else None
        kind = ((match.group(4) if match else None) or "status").lower()
        with self._recorder.request("REST", kind.capitalize()) as record:
            record.peer, record.request_bytes = call.peer, len(body)
            if match is None:
                raise invalid(f"Malformed request: {call.method} {call.path}")
            spec = _model_spec(match)
            record.model = spec.name
            if call.method == "GET":
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

    async def _metrics(self, request: Request) -> Response:
        del request
        page = await asyncio.get_running_loop().run_in_executor(self._threads, self._metrics_page)
        return Response(page, media_type=CONTENT_TYPE)

    async def _healthz(self, request: Request) -> Response:
        """Whether the process answers at all."""
        del request
        return Response("ok\n", media_type="text/plain")

    async def _readyz(self, request: Request) -> Response:
        """Whether the models answer."""
        del request
        if self._service.ready:
            return Response("ok\n", media_type="text/plain")
        return Response("no version of some model answers yet\n", 503, media_type="text/plain")

    async def _samples(self, request: Request) -> Response:
        del request
        samples = await asyncio.get_running_loop().run_in_executor(self._threads, self._service.samples)
        if samples is None:
            return Response(status_code=404)
        return Response(samples, media_type="application/json")

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The request's body as it was sent, and never more than the limit of it."""
        limit = self._limits.max_body_bytes
        too_big = HttpError(
            413, Code.RESOURCE_EXHAUSTED, f"request body is over the limit of {limit} bytes"
        )
        if int(headers.get(b"content-length", b"0")) > limit:
            raise too_big
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ServingError(Code.CANCELLED, "the client has gone")
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise too_big
            chunks.append(chunk)
            if not message.get("more_body"):
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


def _error(error: ServingError) -> Answer:
    status = error.status if isinstance(error, HttpError) else HTTP_STATUS.get(error.code, 500)
    headers = ((b"accept-encoding", b"gzip"),) if status == 415 else ()
    return Answer(status, json_tensors.dump({"error": error.message}), headers)


async def _send(send: Send, answer: Answer) -> None:
    headers = [
        (b"content-length", b"%d" % len(answer.content)),
        (b"content-type", b"application/json"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.content})
