"""The REST application by itself: what concerns HTTP, and not the models."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.models.batching import Batcher
from serving.models.batching_parameters import BatchingParameters
from serving.models.config_file import ModelConfig
from serving.models.loader import Loader, Loading
from serving.models.warmup import warm_up
from serving.protocol.errors import ServingError
from serving.server import codings
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
        [ModelConfig(half_plus_two.NAME, half_plus_two_dir / half_plus_two.NAME)],
        warm_up,
        Loading(poll_s=0.05),
    )
    loader.start()
    assert loader.wait_until_ready(30)
    yield Service(loader, Batcher(BatchingParameters(), Metrics().batch))
    loader.close()


def app(service: Service, web: Path, cors: bool = False, **limits: Any) -> RestApp:
    return RestApp(service, Recorder(Metrics()), Limits(**limits), web, cors)


async def ask(
    app: RestApp, method: str, path: str, *chunks: bytes | None, accept: str = ""
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
        "headers": [(b"accept-encoding", accept.encode())] if accept else [],
        "client": ("127.0.0.1", 1),
        "query_string": b"",
        "root_path": "",
    }
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.slow
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


def test_more_than_enough_at_a_time_is_refused(service: Service, tmp_path: Path) -> None:
    rest = app(service, tmp_path, max_in_flight=1)

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


@pytest.mark.parametrize(
    ("accept", "is_packed"),
    [
        ("gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("br;q=1.0, GZIP;q=0.2", True),
        ("x-gzip", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("*;q=0", False),
        ("br", False),
        ("gzip;q=much", False),
    ],
)
def test_answers_are_packed_when_asked_for(
    service: Service, tmp_path: Path, accept: str, is_packed: bool
) -> None:
    rest = app(service, tmp_path)
    numbers = [float(number) for number in range(1000)]
    body = json.dumps({"instances": numbers}).encode()
    status, headers, content = asyncio.run(ask(rest, "POST", PREDICT, body, accept=accept))
    assert (status, headers["vary"], headers["content-type"]) == (
        200,
        "accept-encoding",
        "application/json",
    )
    assert headers.get("content-encoding") == ("gzip" if is_packed else None)
    assert headers["content-length"] == str(len(content))
    if is_packed:
        content = gzip.decompress(content)
    assert json.loads(content)["predictions"] == [number / 2 + 3 for number in numbers]


def test_small_answers_are_not_packed(service: Service, tmp_path: Path) -> None:
    status, headers, body = asyncio.run(ask(app(service, tmp_path), "POST", PREDICT, GOOD, accept="gzip"))
    assert (status, json.loads(body)) == (200, {"predictions": [4.0]})
    assert "content-encoding" not in headers


def test_pages_of_other_origins_may_ask_when_allowed(service: Service, tmp_path: Path) -> None:
    allowed = {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "POST, GET",
        "access-control-allow-headers": "Content-Type",
    }
    rest = app(service, tmp_path, cors=True)
    for method, chunk, expected in (("OPTIONS", b"", 200), ("POST", GOOD, 200), ("POST", b"{", 400)):
        status, headers, _ = asyncio.run(ask(rest, method, PREDICT, chunk))
        assert status == expected
        assert allowed.items() <= headers.items()
    rest = app(service, tmp_path)
    assert asyncio.run(ask(rest, "OPTIONS", PREDICT))[0] == 400
    assert not allowed.keys() & asyncio.run(ask(rest, "POST", PREDICT, GOOD))[1].keys()


def test_probes(service: Service, tmp_path: Path) -> None:
    rest = app(service, tmp_path)
    for path in ("/healthz", "/readyz"):
        assert asyncio.run(ask(rest, "GET", path))[::2] == (200, b"ok\n")
        assert asyncio.run(ask(rest, "POST", path))[0] == 405
    waiting = Loader([ModelConfig("later", tmp_path / "later")], warm_up)
    rest = app(Service(waiting, Batcher(BatchingParameters(), Metrics().batch)), tmp_path)
    assert asyncio.run(ask(rest, "GET", "/healthz"))[0] == 200
    assert asyncio.run(ask(rest, "GET", "/readyz"))[0] == 503


def test_a_body_of_many_gzip_files_is_refused() -> None:
    with pytest.raises(ServingError, match="over 1000 members"):
        codings.unpack(gzip.compress(b"") * 5000, {b"content-encoding": b"gzip"}, 100)
