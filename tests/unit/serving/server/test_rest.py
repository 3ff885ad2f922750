"""The REST application by itself: what concerns HTTP, and not the models."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.models.batching import Batcher, BatchingParameters
from serving.models.config_file import ModelConfig
from serving.models.loader import Loader
from serving.models.warmup import warm_up
from serving.server.rest import Limits, RestApp
from serving.server.service import Service
from serving.server.telemetry.access_log import Recorder
from serving.server.telemetry.metrics import Metrics
from tests.unit.serving import half_plus_two

PREDICT = f"/v1/models/{half_plus_two.NAME}:predict"
GOOD = b'{"instances": [2.0]}'


@pytest.fixture(scope="module")
def service(half_plus_two_dir: Path) -> Iterator[Service]:
    loader = Loader(
        [ModelConfig(half_plus_two.NAME, half_plus_two_dir / half_plus_two.NAME)], warm_up, 0.05
    )
    loader.start()
    assert loader.wait_until_ready(30)
    yield Service(loader, Batcher(BatchingParameters(), Metrics().batch))
    loader.close()


def app(service: Service, web: Path, **limits: Any) -> RestApp:
    return RestApp(service, Recorder(Metrics()), Limits(**limits), web)


async def ask(
    app: RestApp, method: str, path: str, *chunks: bytes | None
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; a chunk that is None never comes."""
    left = list(chunks) or [b""]
    sent: list[Any] = []

    async def receive() -> Any:
        chunk = left.pop(0) if left else None
        if chunk is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "headers": [],
        "client": ("127.0.0.1", 1),
        "query_string": b"",
        "root_path": "",
    }
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


def test_pages_lie_behind_the_api(service: Service, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>draw</p>")
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "models").write_text("hidden")
    rest = app(service, tmp_path)
    status, headers, body = asyncio.run(ask(rest, "GET", "/"))
    assert (status, body) == (200, b"<p>draw</p>")
    assert headers["content-type"].startswith("text/html")
    assert asyncio.run(ask(rest, "GET", "/v1/models"))[0] == 400
    assert asyncio.run(ask(rest, "GET", "/nowhere"))[0] == 404
    assert asyncio.run(ask(rest, "GET", "/../conftest.py"))[0] == 404


def test_without_pages_there_is_the_api(service: Service, tmp_path: Path) -> None:
    rest = app(service, tmp_path / "nowhere")
    assert asyncio.run(ask(rest, "GET", "/"))[0] == 404
    status, headers, body = asyncio.run(ask(rest, "POST", PREDICT, GOOD))
    assert (status, headers["content-type"], json.loads(body)) == (
        200,
        "application/json",
        {"predictions": [4.0]},
    )


def test_a_body_comes_in_pieces(service: Service, tmp_path: Path) -> None:
    pieces = [GOOD[at : at + 3] for at in range(0, len(GOOD), 3)]
    status, _, body = asyncio.run(ask(app(service, tmp_path), "POST", PREDICT, *pieces))
    assert (status, json.loads(body)) == (200, {"predictions": [4.0]})


def test_a_body_that_does_not_come_is_not_waited_for(service: Service, tmp_path: Path) -> None:
    rest = app(service, tmp_path, arrival_timeout_s=0.05)
    status, headers, body = asyncio.run(ask(rest, "POST", PREDICT, b"{", None))
    assert (status, headers["connection"]) == (408, "close")
    assert "did not arrive in time" in json.loads(body)["error"]


def test_more_than_enough_at_a_time_is_refused(service: Service, tmp_path: Path) -> None:
    rest = app(service, tmp_path, max_in_flight=1, arrival_timeout_s=5.0)

    async def both() -> tuple[int, int]:
        first = asyncio.create_task(ask(rest, "POST", PREDICT, b"{", None))
        await asyncio.sleep(0.05)
        status, _, body = await ask(rest, "POST", PREDICT, GOOD)
        assert "too many requests" in json.loads(body)["error"]
        first.cancel()
        await asyncio.wait([first])
        return status, (await ask(rest, "POST", PREDICT, GOOD))[0]

    assert asyncio.run(both()) == (429, 200)


def test_no_time_left_is_a_504(service: Service, tmp_path: Path) -> None:
    rest = app(service, tmp_path, answer_timeout_s=-1.0)
    status, _, body = asyncio.run(ask(rest, "POST", PREDICT, GOOD))
    assert (status, json.loads(body)) == (504, {"error": "Deadline Exceeded"})


def test_a_fault_of_ours_is_a_500_and_counted(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = app(service, tmp_path)

    def broken(*_: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(service, "predict", broken)
    status, _, body = asyncio.run(ask(rest, "POST", PREDICT, GOOD))
    assert (status, json.loads(body)) == (500, {"error": "RuntimeError: a fault"})
    _, headers, page = asyncio.run(ask(rest, "GET", "/monitoring/prometheus/metrics"))
    assert headers["content-type"].startswith("text/plain")
    assert b'status="INTERNAL",version=""} 1' in page


def test_threads_are_made_when_they_are_needed(service: Service, tmp_path: Path) -> None:
    rest = app(service, tmp_path)
    for _ in range(5):
        assert asyncio.run(ask(rest, "POST", PREDICT, GOOD))[0] == 200
    assert sum(thread.name.startswith("rest") for thread in threading.enumerate()) < 50
