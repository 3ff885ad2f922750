"""HTTP/1.1 as clients may send it, on a raw socket: the request grammar of RFC 9110 and RFC 9112."""

from __future__ import annotations

import contextlib
import gzip
import re
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.serving.conftest import CALL_S
from tests.integration.serving.model_server import Server, running
from tests.unit.serving import half_plus_two

MODEL = b"/v1/models/m"
BODY = b'{"instances": [2.0]}'
GOOD = b'{"predictions":[3.0]}'
ARRIVAL_S = 2.0


@pytest.fixture(scope="module")
def server(half_plus_two_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("http")
    shutil.copytree(half_plus_two_dir / half_plus_two.NAME / "00000001", folder / "m" / "1")
    with running(
        folder / "m", folder, "--max-request-mb", "1", "--arrival-timeout", str(ARRIVAL_S)
    ) as server:
        yield server


def get(target: bytes = MODEL, *headers: bytes, version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    """A request without a body; a Host header unless there is one."""
    lines = list(headers)
    if not any(line.lower().startswith(b"host") for line in lines):
        lines.insert(0, b"Host: a")
    return b"\r\n".join([b"%s %s HTTP/%s" % (method, target, version), *lines, b"", b""])


def post(*headers: bytes, body: bytes = BODY, length: bool = True) -> bytes:
    """A Predict request."""
    lines = [b"Content-Length: %d" % len(body)] if length else []
    return get(MODEL + b":predict", *lines, *headers, method=b"POST") + body


def exchange(server: Server, *pieces: bytes, wait_s: float = CALL_S) -> bytes:
    """What is answered to bytes that are sent one after the other, until the server ends the connection.

    A last request, which asks for the end, is the caller's to send.
    """
    with socket.create_connection(("127.0.0.1", server.rest_port), CALL_S) as connection:
        for piece in pieces:
            connection.sendall(piece)
            if len(pieces) > 1:
                time.sleep(0.05)
        connection.settimeout(wait_s)
        answer = b""
        with contextlib.suppress(TimeoutError):
            while received := connection.recv(65536):
                answer += received
        return answer


def statuses(answer: bytes) -> list[int]:
    """Of all answers on a connection; a body never looks like a status line here."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


CLOSE = b"Connection: close"
CHUNKED = b"Transfer-Encoding: chunked"
LAST = get(b"/healthz-not-there", CLOSE)  # 404: the connection still works, and ends


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        # Targets (RFC 9112, 3.2).
        (get(MODEL, CLOSE), [200]),
        (get(MODEL + b"?verbose=1", CLOSE), [200]),
        (get(b"/V1/Models/m", CLOSE), [200]),
        (get(b"/v1/models/%6d", CLOSE), [200]),
        (get(b"http://a" + MODEL, CLOSE), [200]),
        (get(b"HTTP://b:80" + MODEL, CLOSE), [200]),
        (get(b"http://a", CLOSE), [200]),
        (get(b"http://a?x", CLOSE), [200]),
        (get(b"*", CLOSE, method=b"OPTIONS"), [204]),
        (get(b"*", CLOSE), [400]),
        (get(b"v1/models/m", CLOSE), [400]),
        (get(MODEL + b"#part", CLOSE), [400]),
        (get(b"/v1/models/m\xc3\xa9", CLOSE), [400]),
        (get(b"/v1/models/a b", CLOSE), [400]),
        (get(b"a:80", method=b"CONNECT"), [501]),
        (get(b"/" + b"a" * 100_000), [414]),
        (get(b"/" + b"a" * 2_000_000), [414]),
        # Methods.
        (get(MODEL, CLOSE, method=b"DELETE"), [400]),
        (get(MODEL, CLOSE, method=b"BREW"), [501]),
        (get(MODEL, CLOSE, method=b"get"), [501]),
        (get(b"/", CLOSE, method=b"TRACE"), [405]),
        (get(b"/monitoring/prometheus/metrics", CLOSE, method=b"DELETE"), [405]),
        # Versions.
        (get(MODEL, version=b"1.0"), [200]),
        (get(MODEL, CLOSE, version=b"2.0"), [505]),
        (get(MODEL, CLOSE, version=b"1.2"), [400]),
        (b"GET /v1/models/m\r\n\r\n", [505]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
        # The Host header (3.2).
        (b"GET /v1/models/m HTTP/1.1\r\n\r\n", [400]),
        (b"GET /v1/models/m HTTP/1.0\r\n\r\n", [200]),
        (get(MODEL, b"Host: a", b"Host: a", CLOSE), [400]),
        (get(MODEL, b"Host:", CLOSE), [200]),
        (get(MODEL, b"Host: [::1]:8501", CLOSE), [200]),
        (get(MODEL, b"Host: xn--nxasmq6b.example:1", CLOSE), [200]),
        (get(MODEL, b"Host: a/b", CLOSE), [400]),
        (get(MODEL, b"Host: a, b", CLOSE), [400]),
        # Lines and headers (2.2, 5).
        (b"\r\n\r\n" + get(MODEL, CLOSE), [200]),
        (get(MODEL, b"X-Empty:", b"X-Tab:\ta\t", CLOSE), [200]),
        (get(MODEL, b"X: \xff", CLOSE), [200]),
        (get(MODEL, b"X: a", b" folded", CLOSE), [400]),
        (get(MODEL, b"X : a", CLOSE), [400]),
        (get(MODEL, b": a", CLOSE), [400]),
        (get(MODEL, b"X: a\0b", CLOSE), [400]),
        (get(MODEL, b"X: a\rb", CLOSE), [400]),
        (get(MODEL, b"X: " + b"a" * 60_000, CLOSE), [200]),
        (get(MODEL, b"X: " + b"a" * 100_000, CLOSE), [431]),
        (get(MODEL, *[b"X%d: a" % number for number in range(20_000)]), [431]),
        # Bodies (6).
        (post(CLOSE), [200]),
        (post(b"Content-Length: 20", CLOSE), [400]),
        (post(b"Content-Length: 21", CLOSE, length=False), [408]),
        (post(b"Content-Length: +20", CLOSE, length=False), [400]),
        (post(b"Content-Length: 20, 20", CLOSE, length=False), [400]),
        (post(b"Content-Length: 99999999999999999999", CLOSE, length=False), [400]),
        (post(CHUNKED, CLOSE), [400]),
        (post(CHUNKED, CLOSE, body=b"14\r\n" + BODY + b"\r\n0\r\n\r\n", length=False), [200]),
        (post(CHUNKED, CLOSE, body=b"14;a=b\r\n" + BODY + b"\r\n00;c\r\n\r\n", length=False), [200]),
        (post(b"transfer-encoding: CHUNKED", CLOSE, body=b"0\r\n\r\n", length=False), [400]),
        (post(CHUNKED, CLOSE, body=b"zz\r\n", length=False), [400]),
        (post(CHUNKED, CLOSE, body=b"14\r\n" + BODY + b"X\r\n0\r\n\r\n", length=False), [400]),
        (post(CHUNKED, CHUNKED, CLOSE, body=b"0\r\n\r\n", length=False), [400]),
        (post(b"Transfer-Encoding: gzip, chunked", CLOSE, body=b"0\r\n\r\n", length=False), [501]),
        (post(b"Transfer-Encoding: gzip", CLOSE, length=False), [501]),
        (post(b"Transfer-Encoding: identity", CLOSE, length=False), [501]),
        (
            b"POST /v1/models/m:predict HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n"
            + BODY
            + b"\r\n0\r\n\r\n",
            [400],
        ),
        (b"POST /v1/models/m:predict HTTP/1.0\r\nContent-Length: 20\r\n\r\n" + BODY, [200]),
        (b"POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", [400]),
        # Content codings (RFC 9110, 8.4).
        (post(b"Content-Encoding: gzip", CLOSE, body=gzip.compress(BODY)), [200]),
        (post(b"Content-Encoding: X-GZIP", CLOSE, body=gzip.compress(BODY)), [200]),
        (post(b"Content-Encoding: identity", CLOSE), [200]),
        (post(b"Content-Encoding: ", CLOSE), [200]),
        (
            post(b"Content-Encoding: gzip", CLOSE, body=gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])),
            [200],
        ),
        (post(b"Content-Encoding: gzip", CLOSE, body=gzip.compress(BODY) + b"rest"), [400]),
        (post(b"Content-Encoding: deflate", CLOSE, body=zlib.compress(BODY)), [415]),
        (post(b"Content-Encoding: br", CLOSE), [415]),
        (post(b"Content-Encoding: gzip, gzip", CLOSE, body=gzip.compress(gzip.compress(BODY))), [415]),
        (
            post(
                b"Content-Encoding: gzip",
                b"Content-Encoding: gzip",
                CLOSE,
                body=gzip.compress(gzip.compress(BODY)),
            ),
            [415],
        ),
        (post(b"Content-Type: text/plain", CLOSE), [200]),
        # Expectations (10.1.1).
        (post(b"Expect: 100-continue", CLOSE), [100, 200]),
        (post(b"Expect: 100-Continue", b"Expect: 100-continue", CLOSE), [100, 200]),
        (post(b"Expect: tea", CLOSE), [417]),
        (
            b"POST /v1/models/m:predict HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 20\r\n\r\n"
            + BODY,
            [200],
        ),
        (
            get(MODEL + b":predict", b"Expect: 100-continue", b"Content-Length: 2000000", method=b"POST"),
            [413],
        ),
        # The end of a connection (RFC 9112, 9).
        (get(MODEL, b"Connection: Keep-Alive, Close"), [200]),
        (get(MODEL, b"Connection: keep-alive", b"Connection: close"), [200]),
        (get(MODEL, CLOSE) + get(MODEL), [200]),
        # One after the other, and all at once (9.3.2).
        (get() + post() + LAST, [200, 200, 404]),
        (post() + b"garbage\r\n\r\n", [200, 501]),
        (b"\0\xff garbage\r\n\r\n", [400]),
        (post() + post() + get(MODEL, b"Host: a/b"), [200, 200, 400]),
        (post() + b"\r\n" + LAST, [200, 404]),
        (get(MODEL, method=b"HEAD") + LAST, [400, 404]),
        # A body that nobody asked for.
        (get(MODEL, b"Content-Length: 20") + BODY + LAST, [200, 404]),
        (get(b"/", b"Content-Length: 20", method=b"POST") + BODY + LAST, [405, 404]),
        # Offers of other protocols (RFC 9110, 7.8) are not taken up.
        (get(MODEL, b"Connection: Upgrade", b"Upgrade: websocket") + LAST, [200, 404]),
        (
            post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: x") + LAST,
            [200, 404],
        ),
        (
            post(
                b"Connection: Upgrade",
                b"Upgrade: h2c",
                CHUNKED,
                body=b"14\r\n" + BODY + b"\r\n0\r\n\r\n",
                length=False,
            )
            + LAST,
            [200, 404],
        ),
        (get(MODEL, b"Connection: Upgrade", b"Upgrade: h2c") * 3 + LAST, [200, 200, 200, 404]),
        # Trailers (7.1.2) are no headers.
        (
            post(
                CHUNKED,
                body=b"14\r\n" + BODY + b"\r\n0\r\nContent-Encoding: gzip\r\nHost: b\r\n\r\n",
                length=False,
            )
            + LAST,
            [200, 404],
        ),
        (
            post(
                CHUNKED,
                body=b"14\r\n" + BODY + b"\r\n0\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
                length=False,
            ),
            [431],
        ),
    ],
    ids=lambda value: repr(value[:70]) if isinstance(value, bytes) else None,
)
def test_the_request_grammar(server: Server, request_bytes: bytes, expected: list[int]) -> None:
    assert statuses(exchange(server, request_bytes)) == expected
