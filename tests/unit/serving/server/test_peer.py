"""Calls between processes: results, errors, and the end of the other one."""

from __future__ import annotations

import multiprocessing
import threading

import pytest

from serving.protocol.errors import Code, ServingError, invalid
from serving.server.peer import GoneError, Peer

WAIT_S = 30.0


def divide(a: int, b: int) -> float:
    if b < 0:
        raise invalid("negative")
    return a / b


def test_each_calls_what_the_other_offers() -> None:
    here, there = multiprocessing.Pipe()
    one = Peer(here, {"double": lambda x: 2 * x}, lambda: None)
    # While it answers, it may call back.
    other = Peer(
        there, {"divide": divide, "back": lambda: other.call("double", 4).result(WAIT_S)}, lambda: None
    )
    assert one.call("divide", 6, 3).result(WAIT_S) == 2
    assert one.call("back").result(WAIT_S) == 8
    with pytest.raises(ServingError, match="negative") as refusal:
        one.call("divide", 1, -1).result(WAIT_S)
    assert refusal.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(ServingError, match="ZeroDivisionError: division by zero") as failure:
        one.call("divide", 1, 0).result(WAIT_S)
    assert failure.value.code is Code.INTERNAL


def test_when_the_other_process_ends_nothing_waits_for_it() -> None:
    here, there = multiprocessing.Pipe()
    ended = threading.Event()
    peer = Peer(here, {}, ended.set)
    waits = peer.call("something")
    there.close()
    with pytest.raises(GoneError):
        waits.result(WAIT_S)
    assert ended.wait(WAIT_S)
    with pytest.raises(GoneError):
        peer.call("more").result(WAIT_S)
