"""Connections: how long they are waited for, how many there may be, in which order they are answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

from serving.server import descriptors, http
from serving.server.http import HttpConfig

CALL_S = 20.0
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Path and size of the body; /early answers before it has the body, /never does not."""
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    if scope["path"] == "/never":
        await asyncio.sleep(CALL_S)
    content = f"{scope['path']} {size}".encode()
    headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@contextmanager
def served(**told: Any) -> Iterator[int]:
    """A server for `echo`; its port."""
    server = http.create(echo, HttpConfig(**{"drain_s": 0.0, "arrival_timeout_s": 0.4, **told}))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=uvloop.run, args=(server.serve([listener]),))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def connect(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), CALL_S)
    connection.sendall(sent)
    return connection


def until_closed(connection: socket.socket) -> bytes:
    answer = b""
    with connection:
        while received := connection.recv(65536):
            answer += received
    return answer


def read(connection: socket.socket) -> bytes:
    """One answer of `echo`."""
    answer = b""
    while b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n"):
        received = connection.recv(65536)
        assert received, answer
        answer += received
    return answer


def ask(port: int) -> bytes:
    """The answer to a good request, on a connection of its own."""
    with connect(port, GET) as connection:
        return read(connection)


def statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def test_connections_outlive_those_of_load_balancers() -> None:
    assert HttpConfig().keep_alive_s > 600  # Google's; nginx and AWS have 60


@pytest.mark.slow
def test_a_connection_without_requests_is_closed_without_an_answer() -> None:
    with served(keep_alive_s=0.5) as port:
        assert until_closed(connect(port)) == b""
        assert until_closed(connect(port, b"\r\n")) == b""
        start = time.monotonic()
        assert statuses(until_closed(connect(port, GET))) == [200]
        assert time.monotonic() - start >= 0.4


@pytest.mark.slow
def test_a_connection_with_requests_is_kept() -> None:
    with served(keep_alive_s=0.6) as port, connect(port) as connection:
        for _ in range(4):
            connection.sendall(GET)
            assert read(connection).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.3)


def test_an_answer_has_a_date() -> None:
    with served() as port:
        answers = (ask(port), until_closed(connect(port, b"GET x HTTP/1.1\r\n\r\n")))
    for answer in answers:
        assert re.search(rb"\r\ndate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", answer)


@pytest.mark.slow
def test_a_head_has_to_arrive_in_time() -> None:
    with served() as port:
        connection = connect(port, b"GET / HTTP/1.1\r\n")
        answer = until_closed(connection)
        assert statuses(answer) == [408]
        assert json.loads(answer.split(b"\r\n\r\n")[1]) == {
            "error": "the request's head did not arrive in time"
        }
        # A byte now and then does not help.
        with connect(port) as connection:
            start = time.monotonic()
            with contextlib.suppress(OSError):
                for byte in b"GET / HTTP/1.1\r\nX: " + b"a" * 100:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.05)
            assert time.monotonic() - start < 2


@pytest.mark.slow
def test_a_body_has_to_get_on() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    with served() as port:
        with connect(port, head % 20_000) as connection:  # 1.6 s long, four times the timeout
            for _ in range(20):
                connection.sendall(b"a" * 1000)
                time.sleep(0.08)
            assert read(connection).endswith(b"/ 20000")
        assert statuses(until_closed(connect(port, head % 20_000 + b"a" * 5000))) == [408]
        with connect(port, head % 20_000) as connection:
            connection.settimeout(0.05)
            answer = b""
            for _ in range(100):
                connection.sendall(b"a")
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(65536)
                    break
            assert statuses(answer) == [408]


@pytest.mark.slow
def test_answers_come_in_the_order_of_the_requests() -> None:
    with served() as port:
        with connect(
            port, GET * 20 + b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ) as connection:
            answer = until_closed(connection)
        assert answer.count(b"/ 0") == 20
        assert answer.endswith(b"/last 0")
        # What ends a connection waits for the answers before it, also when it is a body that stops.
        late = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
        assert statuses(until_closed(connect(port, GET * 2 + late))) == [200, 200, 408]
        assert statuses(until_closed(connect(port, GET * 2 + b"GET /"))) == [200, 200, 408]
        assert statuses(until_closed(connect(port, GET * 2 + b"GET / FTP"))) == [200, 200, 400]


def test_a_body_that_is_answered_early_is_read_to_its_end() -> None:
    early = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    with served(max_body_bytes=2**20) as port:
        with connect(port, early % 2**20) as connection:
            assert read(connection).endswith(b"/early 0")
            connection.sendall(b"a" * 2**20 + GET)
            assert read(connection).endswith(b"/ 0")
        with connect(port, early % 2**24) as connection:  # but not for ever
            assert read(connection).endswith(b"/early 0")
            with pytest.raises(ConnectionError):
                connection.sendall(b"a" * 2**24)


def test_a_refused_body_does_not_cost_the_answer() -> None:
    """A client that sends much before it reads gets the answer, and no reset."""
    with served() as port:
        for _ in range(20):
            answer = until_closed(connect(port, b"POST x HTTP/1.1\r\nHost: a\r\n\r\n" + b"a" * 500_000))
            assert statuses(answer) == [400]


def accepted(port: int, count: int) -> list[socket.socket]:
    """Idle connections that the server knows of: it takes them in order, and has answered the last one."""
    connections = [*(connect(port) for _ in range(count - 1)), connect(port, GET)]
    assert read(connections[-1]).startswith(b"HTTP/1.1 200 ")
    return connections


def test_idle_connections_make_room_the_oldest_first(caplog: pytest.LogCaptureFixture) -> None:
    with served(max_connections=20) as port:
        first = connect(port)
        used = connect(port, GET)
        assert read(used).startswith(b"HTTP/1.1 200 ")
        others = accepted(port, 18)
        used.sendall(GET)  # idle for a shorter time than all others
        assert read(used).startswith(b"HTTP/1.1 200 ")
        assert statuses(ask(port)) == [200]
        assert first.recv(1) == b""
        others += accepted(port, 18)
        used.sendall(GET)
        assert read(used).startswith(b"HTTP/1.1 200 ")
        for _ in range(50):
            assert statuses(ask(port)) == [200]
        for connection in (first, used, *others):
            connection.close()
    assert [record.levelno for record in caplog.records if "REST connections" in record.message] == [
        logging.WARNING
    ]


@pytest.mark.slow
def test_without_an_idle_connection_new_ones_are_answered_503() -> None:
    never = b"POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    with served(max_connections=3) as port:
        busy = [connect(port, never) for _ in range(3)]
        time.sleep(0.3)
        assert statuses(until_closed(connect(port))) == [503]
        busy.pop().close()
        time.sleep(0.3)
        assert statuses(ask(port)) == [200]
        for connection in busy:
            connection.close()


def test_half_requests_make_room_too() -> None:
    with served(max_connections=10, arrival_timeout_s=CALL_S) as port:
        halves = [connect(port, b"GET / HTTP/1.1\r\n") for _ in range(30)]
        assert statuses(ask(port)) == [200]
        for connection in halves:
            connection.close()


def test_connections_stay_below_the_limit_of_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
        assert descriptors.connections_within(4096) == (400 - descriptors.RESERVED) // 2
        assert descriptors.connections_within(7) == 7
        descriptors.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, descriptors.ENOUGH)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
