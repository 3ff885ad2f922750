"""A server on the conformance models, or the TF Serving that the environment names."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.integration.serving.model_server import running
from tests.unit.serving import half_plus_two

CALL_S = 30.0
ALL_AVAILABLE = {
    "model_version_status": [
        {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        for version in ("2", "1")
    ]
}


@dataclass(frozen=True)
class Endpoint:
    """A server that speaks TF Serving's APIs."""

    host: str
    rest_port: int
    grpc_port: int
    is_ours: bool = True

    def rest(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of an answer; `body` as JSON, bytes as they are."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.host, self.rest_port, timeout=CALL_S)
        try:
            connection.request(method, path, content, headers or {})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text.decode("utf-8", "replace")

    def channel(self) -> grpc.Channel:
        """A new channel; the caller closes it."""
        return grpc.insecure_channel(f"{self.host}:{self.grpc_port}")


@pytest.fixture(scope="session")
def half_plus_two_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conformance models and their config file."""
    folder = tmp_path_factory.mktemp("half-plus-two")
    half_plus_two.write_all(folder)
    return folder


@pytest.fixture(scope="session")
def endpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Endpoint]:
    """A server with the conformance models.

    CONFORMANCE_HOST names a TF Serving instead, with CONFORMANCE_REST_PORT (8501) and CONFORMANCE_GRPC_PORT
    (8500); it must serve what `python -m tests.unit.serving.half_plus_two FOLDER` writes.
    """
    host = os.environ.get("CONFORMANCE_HOST")
    if host:
        rest_port = int(os.environ.get("CONFORMANCE_REST_PORT", "8501"))
        grpc_port = int(os.environ.get("CONFORMANCE_GRPC_PORT", "8500"))
        yield Endpoint(host, rest_port, grpc_port, is_ours=False)
        return
    models: Path = request.getfixturevalue("half_plus_two_dir")
    scratch = tmp_path_factory.mktemp("conformance")
    with running(
        models / half_plus_two.NAME, scratch, "--model-config-file", str(models / "models.config")
    ) as server:
        there = Endpoint("127.0.0.1", server.rest_port, server.grpc_port)
        # A model is ready when one version answers; the tests ask both.
        ends_at = time.monotonic() + CALL_S
        while there.rest("GET", f"/v1/models/{half_plus_two.NAME}")[1] != ALL_AVAILABLE:
            assert time.monotonic() < ends_at
            time.sleep(0.05)
        yield there


@pytest.fixture(scope="session")
def channel(endpoint: Endpoint) -> Iterator[grpc.Channel]:
    """One channel for all."""
    with endpoint.channel() as channel:
        yield channel
