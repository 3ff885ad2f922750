"""JSON to values: what is taken, and what is refused."""

from __future__ import annotations

import base64

import pytest

from serving.protocol import json_tensors
from serving.protocol.errors import Code, ServingError

LONG = bytes(range(256))


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", b""),
        (" \n", b""),
        ("YQ==", b"a"),
        ("YQ", b"a"),
        ("YQ..", b"a"),
        ("YQ=.", b"a"),
        ("Y Q = =", b"a"),
        ("YWI=", b"ab"),
        ("YWI", b"ab"),
        ("YWJj", b"abc"),
        ("\n Y\tW\rJ\vj\f", b"abc"),
        ("YR==", b"a"),  # bits behind the last byte are ignored
        ("+/+/", b"\xfb\xff\xbf"),
        (base64.encodebytes(LONG).decode(), LONG),
        (base64.encodebytes(LONG).decode().replace("\n", "\r\n"), LONG),
    ],
)
def test_base64_as_absl_takes_it(text: str, content: bytes) -> None:
    assert json_tensors.decode_base64({"b64": text}) == content


@pytest.mark.parametrize(
    "text",
    [
        "Y",
        "YWJjY",
        "YQ=",
        "YQ===",
        "YWI==",
        "YWJj=",
        "YWJj====",
        "YQ==YQ==",
        "=YQ=",
        "====",
        "-_-_",  # the alphabet for URLs is another function of absl's
        "YQ!=",
        "YQ\x00=",
        "YQ\u00a0==",  # white space of Unicode is none of C's
        "YQ\x1c==",
        "\u00e9AAA",
    ],
)
def test_base64_as_absl_refuses_it(text: str) -> None:
    with pytest.raises(ServingError, match="Unable to base64 decode") as caught:
        json_tensors.decode_base64({"b64": text})
    assert caught.value.code is Code.INVALID_ARGUMENT
