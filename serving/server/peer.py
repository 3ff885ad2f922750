"""Two processes at the ends of a pipe, each of which calls what the other offers."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from serving.protocol.errors import Code, ServingError

THREADS = 32  # that answer calls


class GoneError(ServingError):
    """The other process has ended."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__(Code.UNAVAILABLE, "the other process has ended")


class Peer:
    """The other process."""

    def __init__(
        self, connection: Connection, offers: Mapping[str, Callable[..., Any]], on_end: Callable[[], None]
    ) -> None:
        """Begin to answer its calls.

        Args:
            connection: this end of the pipe.
            offers: what the other process may call, by name; in threads, several at a time.
            on_end: called when the other process has ended.
        """
        self._connection = connection
        self._offers = offers
        self._on_end = on_end
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._calls: dict[int, Future[Any]] = {}
        self._is_gone = False
        self._threads = ThreadPoolExecutor(THREADS, "peer")
        threading.Thread(target=self._read, name="peer", daemon=True).start()

    def call(self, name: str, *arguments: Any) -> Future[Any]:
        """Call what the other process offers.

        Returns:
            What comes of it: a result, a ServingError, or GoneError.
        """
        future: Future[Any] = Future()
        with self._lock:
            number = next(self._numbers)
            self._calls[number] = future
            if self._is_gone:
                self._calls.pop(number).set_exception(GoneError())
                return future
            with contextlib.suppress(OSError):  # then reading ends, and with it this call
                self._connection.send((name, number, arguments))
        return future

    def _read(self) -> None:
        try:
            while True:
                name, number, content = self._connection.recv()
                if name is not None:
                    self._threads.submit(self._answer, name, number, content)
                    continue
                result, error = content
                future = self._calls.pop(number)
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(ServingError(*error))
        except (EOFError, OSError):
            pass
        finally:
            with self._lock:
                self._is_gone = True
                calls, self._calls = self._calls, {}
            for future in calls.values():
                future.set_exception(GoneError())
            self._on_end()

    def _answer(self, name: str, number: int, arguments: tuple[Any, ...]) -> None:
        result, error = None, None
        try:
            result = self._offers[name](*arguments)
        except ServingError as failure:
            error = failure.code, failure.message
        except Exception as failure:  # must reach whoever waits for it
            error = Code.INTERNAL, f"{type(failure).__name__}: {failure}"
        with self._lock, contextlib.suppress(OSError):
            self._connection.send((None, number, (result, error)))
