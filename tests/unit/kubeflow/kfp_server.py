"""A Kubeflow Pipelines API server for tests: real HTTP, v2beta1, kfp-server-api's models as its schema.

What is sent is refused unless every field exists in the model of the call and has its type; the pipeline is
parsed into PipelineSpec and PlatformSpec. What is answered is made from the same models.
"""

from __future__ import annotations

import json
import ssl
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.unit.kubeflow import openapi

Json = Any
PAGE = b"<html>please log in</html>"
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


class RefusedError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check(value: Json, kind: str) -> None:
    """Refuse a body that does not fit its model."""
    try:
        openapi.check(value, kind, vars(kfp_server_api), "body")
    except openapi.SchemaError as error:
        raise RefusedError(400, f"Invalid input error: {error}") from None


def _expect(condition: object, message: str) -> None:
    if not condition:
        raise RefusedError(400, f"Invalid input error: {message}")


def step(name: str, state: str, seconds: float | None = None) -> kfp_server_api.V2beta1PipelineTaskDetail:
    """A step as the server tells it; what has not ended has the time before all times."""
    never = datetime(1, 1, 1, tzinfo=UTC)
    return kfp_server_api.V2beta1PipelineTaskDetail(
        task_id=str(uuid.uuid4()),
        display_name=name,
        state=state,
        start_time=BEGUN,
        end_time=never if seconds is None else BEGUN + timedelta(seconds=seconds),
    )


@dataclass
class Look:
    """How a run stands at one look."""

    state: str
    steps: list[kfp_server_api.V2beta1PipelineTaskDetail] = field(default_factory=list)
    error: kfp_server_api.GoogleRpcStatus | None = None


@dataclass
class Server:
    """What the server knows and how it behaves.

    Attributes:
        url: its address.
        multi_user: whether calls need a namespace.
        token: the only bearer token that is taken; None: any or none.
        writable: whether this user may start something.
        login_page: whether there is a login page in front of it.
        looks: how a run stands at each look; the last one stays. An HTTP status: the server's answer.
        made: when each run was made.
        requests: method and path of each call, in order.
        tokens: the authorization of each call.
        namespaces: where experiments were made.
    """

    url: str = ""
    multi_user: bool = False
    token: str | None = None
    writable: bool = True
    login_page: bool = False
    looks: list[Look | int] = field(default_factory=lambda: [Look("SUCCEEDED")])
    experiments: dict[str, kfp_server_api.V2beta1Experiment] = field(default_factory=dict)
    runs: dict[str, Json] = field(default_factory=dict)
    made: dict[str, datetime] = field(default_factory=dict)
    recurring: dict[str, Json] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    namespaces: list[str | None] = field(default_factory=list)

    def answer(self, method: str, path: str, query: dict[str, str], body: Json) -> Any:
        """A model of kfp-server-api for one call."""
        match method, path.removeprefix("/apis/v2beta1/").split("/"):
            case "GET", ["healthz"]:
                return kfp_server_api.V2beta1GetHealthzResponse(multi_user=self.multi_user)
            case "GET", ["experiments"]:
                self._needs_namespace(query.get("namespace"))
                (predicate,) = json.loads(query["filter"])["predicates"]
                _expect(predicate["key"] == "display_name", "only names are searched for")
                found = self.experiments.get(predicate["stringValue"])
                return kfp_server_api.V2beta1ListExperimentsResponse(experiments=[found] if found else None)
            case "POST", ["experiments"]:
                self._may_write()
                check(body, "V2beta1Experiment")
                self._needs_namespace(body.get("namespace"))
                self.namespaces.append(body.get("namespace"))
                made = kfp_server_api.V2beta1Experiment(
                    experiment_id=str(uuid.uuid4()), display_name=body["display_name"]
                )
                return self.experiments.setdefault(body["display_name"], made)
            case "POST", ["runs"]:
                self._may_write()
                check(body, "V2beta1Run")
                self._check_job(body)
                run_id = str(uuid.uuid4())
                self.runs[run_id] = body
                self.made[run_id] = datetime.now(UTC)
                return kfp_server_api.V2beta1Run(run_id=run_id, display_name=body["display_name"])
            case "GET", ["runs"]:
                _expect(query["sort_by"] == "created_at desc", "only the newest ones are asked for")
                own = [i for i, r in self.runs.items() if r["experiment_id"] == query["experiment_id"]]
                newest = sorted(own, key=lambda run_id: self.made[run_id], reverse=True)
                return kfp_server_api.V2beta1ListRunsResponse(
                    runs=[
                        kfp_server_api.V2beta1Run(run_id=run_id, created_at=self.made[run_id])
                        for run_id in newest[: int(query["page_size"])]
                    ]
                )
            case "GET", ["runs", run_id]:
                if run_id not in self.runs:
                    raise RefusedError(404, f"Failed to get a run: Run {run_id} not found")
                return self._look(run_id)
            case "POST", ["recurringruns"]:
                self._may_write()
                check(body, "V2beta1RecurringRun")
                self._check_job(body)
                recurring_id = str(uuid.uuid4())
                self.recurring[recurring_id] = body
                return kfp_server_api.V2beta1RecurringRun(recurring_run_id=recurring_id)
        raise RefusedError(404, "Not Found")

    def _look(self, run_id: str) -> kfp_server_api.V2beta1Run:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, int):
            raise RefusedError(look, "upstream connect error")
        sent = self.runs[run_id]
        return kfp_server_api.V2beta1Run(
            run_id=run_id,
            display_name=sent["display_name"],
            pipeline_spec=sent["pipeline_spec"],
            state=look.state,
            error=look.error,
            run_details=kfp_server_api.V2beta1RunDetails(task_details=look.steps),
        )

    def _check_job(self, body: Json) -> None:
        known = {experiment.experiment_id for experiment in self.experiments.values()}
        _expect(body.get("experiment_id") in known, "the experiment does not exist")
        _expect(body.get("display_name"), "The run name is empty. Please specify a valid name")
        spec = body["pipeline_spec"]
        try:
            pipeline = json_format.ParseDict(
                spec.get("pipeline_spec", spec), pipeline_spec_pb2.PipelineSpec()
            )
            json_format.ParseDict(spec.get("platform_spec", {}), pipeline_spec_pb2.PlatformSpec())
        except json_format.ParseError as error:
            raise RefusedError(400, f"Invalid input error: {error}") from None
        declared = pipeline.root.input_definitions.parameters
        for name in body["runtime_config"].get("parameters", {}):
            _expect(name in declared, f"parameter {name} is not found in PipelineJob")

    def _may_write(self) -> None:
        if not self.writable:
            raise RefusedError(
                403,
                "PermissionDenied: User 'ann' is not authorized with reason: (create on runs in team-a)",
            )

    def _needs_namespace(self, namespace: str | None) -> None:
        _expect(
            not self.multi_user or namespace,
            "An experiment cannot have an empty namespace in multi-user mode",
        )


@contextmanager
def running(certificate: Path | None = None) -> Iterator[Server]:
    """A server on a free port of this machine; stopped at the end.

    Args:
        certificate: PEM file of a key and a certificate for "localhost"; with it the server speaks TLS.
    """
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(size)
            address = urlsplit(self.path)
            server.requests.append(f"{self.command} {address.path}")
            server.tokens.append(self.headers.get("authorization"))
            if server.login_page:
                self._send(200, "text/html", PAGE)
                return
            try:
                if server.token and self.headers.get("authorization") != f"Bearer {server.token}":
                    raise RefusedError(401, "Unauthenticated: the token is not valid")
                query = {key: values[0] for key, values in parse_qs(address.query).items()}
                result = server.answer(self.command, address.path, query, json.loads(raw) if raw else None)
                answer = kfp_server_api.ApiClient().sanitize_for_serialization(result)
                status = 200
            except RefusedError as refused:
                status, answer = refused.status, {"code": 3, "message": str(refused), "details": []}
            self._send(status, "application/json", json.dumps(answer).encode())

        def _send(self, status: int, kind: str, payload: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = _handle  # noqa: N815 (the base class looks for these names)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        http.socket = context.wrap_socket(http.socket, server_side=True)
        server.url = f"https://localhost:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
