"""A REST connection: uvicorn's HTTP/1.1 on httptools, with what RFC 9112 asks of a server beyond parsing,
and with no patience for clients that never finish a request.
"""

from __future__ import annotations

import asyncio
import http
import logging
import re
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 2**10  # of a request line with its headers, and of trailers
LINGER_S = 1.0
MIN_BODY_BYTES_PER_S = 500  # as Apache's mod_reqtimeout
HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(?::\d*)?", re.ASCII)
TOKEN = rb"[\w!#$%&'*+.^`|~-]+"
REQUEST_LINE = re.compile(rb"(?:\r?\n)*" + TOKEN + rb" ", re.ASCII)
ABSOLUTE = re.compile(rb"https?://[^/?#]+", re.IGNORECASE)


@dataclass(frozen=True)
class Refusal:
    """The last answer on a connection."""

    status: int
    message: str

    def bytes(self) -> bytes:
        """The answer as it is sent."""
        body = orjson.dumps({"error": self.message})
        return (
            f"HTTP/1.1 {self.status} {http.HTTPStatus(self.status).phrase}\r\nconnection: close\r\n"
            f"date: {formatdate(usegmt=True)}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body


HEAD_LATE = Refusal(408, "the request's head did not arrive in time")
BODY_LATE = Refusal(408, "the request's body did not arrive in time")
HEAD_LONG = Refusal(431, f"the request's head is over the limit of {MAX_HEAD_BYTES} bytes")
TARGET_LONG = Refusal(414, f"the request's target is over the limit of {MAX_HEAD_BYTES} bytes")
FULL = Refusal(503, "too many connections")


class Pool:
    """The connections of a port: when there are too many, those make room that have no whole request."""

    def __init__(self, limit: int) -> None:
        """No connection yet.

        Args:
            limit: the most that are open at a time.
        """
        self.limit = limit
        # Oldest first.
        self.idle: dict[Connection, None] = {}
        self.arriving: dict[Connection, None] = {}
        self._has_told = False

    def make_room(self) -> bool:
        """Close the connection that is idle for the longest, or whose request arrives for the longest.

        Returns:
            Whether there was one.
        """
        if not self._has_told:  # once: there may be thousands
            self._has_told = True
            log.warning("more than %d REST connections: those without a request are closed", self.limit)
        oldest = next(iter(self.idle), None) or next(iter(self.arriving), None)
        if oldest is None:
            return False
        self.forget(oldest)
        oldest.transport.close()
        return True

    def forget(self, connection: Connection) -> None:
        """It has a whole request, or is closed."""
        self.idle.pop(connection, None)
        self.arriving.pop(connection, None)


class Connection(HttpToolsProtocol):
    """One connection; subclasses made for a server set what it is told."""

    pool: Pool
    arrival_timeout_s: float  # for a head, and between two looks at how a body gets on
    max_body_bytes: int

    _in_head = False  # a head has begun
    _in_body = False  # a body has begun
    _head_bytes = 0
    _body_bytes = 0  # since the last look
    _unread_bytes = 0  # of a body that is answered already
    _timer: asyncio.TimerHandle | None = None
    _has_ended = False  # that was said
    _refusal: Refusal | None = None  # what ends the connection after the answers before it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take part in the pool, or be refused."""
        super().connection_made(transport)
        if len(self.connections) > self.pool.limit and not self.pool.make_room():
            self._refuse(FULL)
            return
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        self._take_place()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is due any more."""
        self._stop_timer()
        self._unset_keepalive_if_required()
        self.pool.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and see what is due next."""
        if self._refusal is not None:  # of what comes behind it nothing is understood
            return
        try:
            self._feed(data)
        except httptools.HttpParserInvalidMethodError:
            is_method = REQUEST_LINE.match(data) is not None
            self._refuse(Refusal(501, "unknown method") if is_method else Refusal(400, "this is not HTTP"))
        except httptools.HttpParserError as error:
            self._refuse(self._refusal or Refusal(400, f"this is not HTTP: {error}"))
        if self._in_head and self._refusal is None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HEAD_LONG if self.headers else TARGET_LONG)
        if self._refusal is None and (self._in_head or self._in_body):
            if self._timer is None:
                self._timer = self.loop.call_later(self.arrival_timeout_s, self._look)
        else:
            self._stop_timer()

    def _feed(self, data: bytes) -> None:
        """To the parser; a request that offers another protocol is parsed again without the offer."""
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                version = self.parser.get_http_version().encode()
                lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
                lines += [b"%s: %s" % each for each in self.headers if each[0] != b"upgrade"]
                data = b"\r\n".join([*lines, b"", b""]) + data[upgrade.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def on_message_begin(self) -> None:
        """A request comes."""
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._in_head, self._head_bytes = True, 0
        self._take_place()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what comes behind a body is none."""
        if self._in_head:
            super().on_header(name, value)
            return
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._fail(HEAD_LONG)

    def on_headers_complete(self) -> None:
        """Check what the parser does not, and begin to answer."""
        refusal = self._check_head()
        if refusal is not None:
            self._in_head = False
            self._fail(refusal)
        if self.parser.should_upgrade():
            return
        if self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False
        self._in_head, self._head_bytes = False, 0
        self._in_body, self._body_bytes, self._unread_bytes = True, 0, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._body_bytes += len(body)
        if self.cycle.response_complete:
            self._unread_bytes += len(body)
            if self._unread_bytes > self.max_body_bytes:
                self.transport.close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        if self.parser.should_upgrade():
            return
        self._in_body = False
        super().on_message_complete()
        self._take_place()

    def on_response_complete(self) -> None:
        """An answer is written: the next one, or what ends the connection."""
        super().on_response_complete()
        self._end_if_due()
        self._take_place()

    def _take_place(self) -> None:
        """In the pool: idle, arriving, or, with a request to answer, neither."""
        self.pool.forget(self)
        is_answered = self.cycle is None or self.cycle.response_complete
        if not self.pipeline and (is_answered or self._in_body):
            (self.pool.arriving if self._in_head or self._in_body else self.pool.idle)[self] = None

    def _check_head(self) -> Refusal | None:
        """What RFC 9110 and 9112 have a server refuse; makes an absolute target one of a path."""
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            return Refusal(505, f"HTTP/{version} is not spoken here")
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            return TARGET_LONG if len(self.url) > MAX_HEAD_BYTES else HEAD_LONG
        values: dict[bytes, list[bytes]] = {}
        for name, value in self.headers:
            if name in (b"host", b"transfer-encoding", b"expect"):
                values.setdefault(name, []).append(value)
        hosts = values.get(b"host", [])
        if len(hosts) > 1 or (not hosts and version == "1.1"):
            return Refusal(400, "a request has one Host header")
        if hosts and not HOST.fullmatch(hosts[0].strip()):
            return Refusal(400, "the Host header names no host")
        codings = b",".join(values.get(b"transfer-encoding", [])).lower().split(b",")
        if codings != [b""]:
            if version == "1.0":
                return Refusal(400, "HTTP/1.0 has no Transfer-Encoding")
            if [coding.strip() for coding in codings] != [b"chunked"]:
                return Refusal(501, "chunked is the one transfer coding")
        expected = [value.strip().lower() for value in values.get(b"expect", [])]
        if version == "1.1" and any(value != b"100-continue" for value in expected):
            return Refusal(417, "100-continue is the one expectation")
        return self._check_target()

    def _check_target(self) -> Refusal | None:
        method = self.parser.get_method()
        if method == b"CONNECT":
            return Refusal(501, "this is no proxy")
        if self.url == b"*" and method == b"OPTIONS":
            self.url = b"/"
            return None
        authority = ABSOLUTE.match(self.url)
        if authority:
            path = self.url[authority.end() :]
            self.url = path if path.startswith(b"/") else b"/" + path
        if not self.url.startswith(b"/") or b"#" in self.url:
            return Refusal(400, "the request's target is no path")
        return None

    def _fail(self, refusal: Refusal) -> None:
        """Have the parser stop.

        Raises:
            ValueError: always, through the parser, as an HttpParserCallbackError.
        """
        self._refusal = refusal
        raise ValueError(refusal.message)

    def _refuse(self, refusal: Refusal) -> None:
        """The last answer, in its turn; nothing that is read from now on counts."""
        self._refusal = refusal
        self._end_if_due()

    def _end_if_due(self) -> None:
        is_answered = self.cycle is None or self.cycle.response_complete
        due = not self.pipeline and (is_answered or self._in_body)
        if self._refusal is None or self._has_ended or not due or self.transport.is_closing():
            return
        self._has_ended = True
        if self.cycle is not None and not is_answered:
            if self.cycle.response_started:  # then nothing else can be said
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(self._refusal.bytes())
        # Closing with bytes unread would be a reset, which can take the answer from a client that still
        # sends; so what it sends is read, to no end, for a moment.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _look(self) -> None:
        """Time is up for a head; a body has to have made progress."""
        self._timer = None
        if self.transport.is_closing():
            return
        enough = self._in_body and self._body_bytes >= MIN_BODY_BYTES_PER_S * self.arrival_timeout_s
        # While it is not read from the connection, nothing can arrive.
        if enough or self.flow.read_paused:
            self._body_bytes = 0
            self._timer = self.loop.call_later(self.arrival_timeout_s, self._look)
        else:
            self._refuse(HEAD_LATE if self._in_head else BODY_LATE)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def protocol(pool: Pool, arrival_timeout_s: float, max_body_bytes: int) -> type[Connection]:
    """The class of a server's connections."""
    told: dict[str, Any] = {
        "pool": pool,
        "arrival_timeout_s": arrival_timeout_s,
        "max_body_bytes": max_body_bytes,
    }
    return type("Connection", (Connection,), told)
