"""A model server's address, as people write it."""

from __future__ import annotations

import pytest

from pipeline.cli.address import Address, parse
from pipeline.errors import UserError


@pytest.mark.parametrize(
    ("host", "port", "grpc", "address"),
    [
        ("127.0.0.1", None, None, Address("127.0.0.1", 8500, True, False)),
        ("localhost", None, False, Address("localhost", 8501, False, False)),
        ("localhost", 8501, None, Address("localhost", 8501, False, False)),
        ("localhost:8501", None, None, Address("localhost", 8501, False, False)),
        ("localhost:8500", None, None, Address("localhost", 8500, True, False)),
        ("localhost:8501", None, True, Address("localhost", 8501, True, False)),
        ("localhost:8501", 8501, None, Address("localhost", 8501, False, False)),
        ("http://localhost:8501", None, None, Address("localhost", 8501, False, False)),
        ("http://localhost:8501/", None, None, Address("localhost", 8501, False, False)),
        ("http://localhost:80", None, None, Address("localhost", 80, False, False)),
        ("https://models.example", 443, None, Address("models.example", 443, False, True)),
        ("grpc://localhost:9000", None, None, Address("localhost", 9000, True, False)),
        ("::1", None, None, Address("::1", 8500, True, False)),
        ("[::1]:8501", None, None, Address("::1", 8501, False, False)),
    ],
)
def test_it_is_taken_apart(host: str, port: int | None, grpc: bool | None, address: Address) -> None:
    assert parse(host, port, grpc) == address


@pytest.mark.parametrize(
    "host",
    ["", "localhost:port", "localhost:99999", "ftp://localhost", "http://h/v1/models/m", "a@b:1"],
)
def test_anything_else_is_refused(host: str) -> None:
    with pytest.raises(UserError, match="give name, name:port or http://name:port"):
        parse(host, None, None)


def test_two_ports_are_refused() -> None:
    with pytest.raises(UserError, match="two ports"):
        parse("localhost:8501", 8500, None)
