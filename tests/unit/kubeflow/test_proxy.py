"""The API of Kubeflow Pipelines is asked through a proxy where it is on another machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kubeflow import api

_ASKED: list[str] = []


class _Server(BaseHTTPRequestHandler):
    """Refuses everything, and writes down what it was asked: a whole URL, where it is taken for a proxy."""

    def do_GET(self) -> None:
        _ASKED.append(self.path)
        self.send_error(403)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "localhost,127.0.0.1,::1")
    _ASKED.clear()
    with HTTPServer(("127.0.0.1", 0), _Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "proxied"),
    [
        ("http://kubeflow.example", True),
        ("http://localhost:{port}", False),
        ("http://127.0.0.1:{port}", False),
    ],
)
def test_remote_servers_are_asked_through_the_proxy_and_this_machine_is_not(
    host: str, proxied: bool, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("http_proxy", here if proxied else "http://127.0.0.1:9")

    with pytest.raises(api.ApiError, match="does not let you"):
        api.connect(api.Access(host=host.format(port=port)))

    assert [f"{host if proxied else ''}/apis/v2beta1/healthz"] == _ASKED
