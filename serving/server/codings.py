"""Content codings (RFC 9110, 8.4): gzip in requests and in answers."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping

from serving.protocol.errors import Code, ServingError, invalid

GZIP = (b"gzip", b"x-gzip")
PIECE_BYTES = 2**16  # of packed bytes that are looked at together
MAX_MEMBERS = 1000  # of a gzip body: each costs a piece's copy


class HttpError(ServingError):
    """A failure of HTTP itself, which TF Serving has no code for."""

    def __init__(self, status: int, code: Code, message: str) -> None:
        """Keep the HTTP status in addition to what the metrics count."""
        super().__init__(code, message)
        self.status = status


def unpack(body: bytes, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """A request's body without its content coding.

    Args:
        body: as it was sent.
        headers: by their names in lower case.
        limit: the most bytes that it may have.

    Raises:
        HttpError: 415 for another coding than gzip, or more than one; 413 over the limit.
        ServingError: INVALID_ARGUMENT when it is no gzip.
    """
    given = headers.get(b"content-encoding")
    if given is None:
        return body
    applied = [coding.strip().lower() for coding in given.split(b",")]
    applied = [coding for coding in applied if coding not in (b"", b"identity")]
    if not applied:
        return body
    if len(applied) > 1 or applied[0] not in GZIP:
        name = given.decode("latin-1")
        raise HttpError(415, Code.INVALID_ARGUMENT, f"Content-Encoding {name} is not supported; gzip is")
    return _gunzip(body, limit)


def _gunzip(body: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    pieces: list[bytes] = []
    size, at, members = 0, 0, 1
    view = memoryview(body)
    while at < len(view) or not unpacker.eof:
        if unpacker.eof:  # a body may be several files, one behind the other
            unpacker, members = zlib.decompressobj(zlib.MAX_WBITS | 16), members + 1
        piece = view[at : at + PIECE_BYTES]
        if not piece or members > MAX_MEMBERS:
            reason = "it ends too early" if not piece else f"it has over {MAX_MEMBERS} members"
            raise invalid(f"Failed to decompress the gzip body: {reason}")
        try:
            pieces.append(unpacker.decompress(piece, limit - size + 1))
        except zlib.error as error:
            raise invalid(f"Failed to decompress the gzip body: {error}") from None
        at += len(piece) - len(unpacker.unused_data)
        size += len(pieces[-1])
        if size > limit:
            raise HttpError(
                413, Code.RESOURCE_EXHAUSTED, f"request body is over the limit of {limit} bytes"
            )
    return b"".join(pieces)


def accepts_gzip(accepted: bytes) -> bool:
    """Whether an Accept-Encoding header asks for gzip: `*` and weights count (RFC 9110, 12.5.3)."""
    weights: dict[bytes, float] = {}
    for each in accepted.lower().split(b","):
        coding, _, parameter = each.partition(b";")
        weight = parameter.strip().removeprefix(b"q=").strip()
        try:
            weights[coding.strip()] = float(weight) if parameter else 1.0
        except ValueError:
            weights[coding.strip()] = 0.0
    return any(weights.get(name, 0) > 0 for name in GZIP) or (
        weights.get(b"*", 0) > 0 and not any(name in weights for name in GZIP)
    )


def pack(content: bytes) -> bytes:
    """gzip, fast rather than small."""
    return gzip.compress(content, compresslevel=1, mtime=0)
