"""Every request leaves a trace: metrics always, a line of the access log when there is one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import orjson

from serving.models.runtime import tf
from serving.models.servable import as_serving_error
from serving.protocol.errors import Code, ServingError
from serving.server.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

FLUSH_S = 1.0


@dataclass
class Record:
    """What is known of a request; the transports fill it in."""

    entrypoint: str  # REST or GRPC
    api: str  # Predict, Classify, …
    peer: str = ""
    model: str = ""
    version: str = ""
    signature: str = ""
    request_bytes: int = 0
    code: Code = Code.OK
    message: str = ""


class AccessLog:
    """A JSON object a line, for each request; written every second, whole lines at once: several processes
    may write to one file.
    """

    def __init__(self, path: Path) -> None:
        """Append to a file."""
        self._file: IO[bytes] = path.open("ab", buffering=0)
        self._lines: list[bytes] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._flusher = threading.Thread(target=self._keep_flushing, name="access-log", daemon=True)
        self._flusher.start()

    def write(self, record: Record, seconds: float) -> None:
        """Append a line."""
        line = orjson.dumps(
            {
                "time": time.time(),
                "entrypoint": record.entrypoint,
                "api": record.api,
                "peer": record.peer,
                "model": record.model,
                "version": record.version,
                "signature": record.signature,
                "status": record.code.name,
                "error": record.message[:1000],
                "latency_ms": round(seconds * 1e3, 3),
                "request_bytes": record.request_bytes,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        with self._lock:
            self._lines.append(line)

    def close(self) -> None:
        """Write what is left."""
        self._stop.set()
        self._flusher.join()
        self._flush()
        self._file.close()

    def _keep_flushing(self) -> None:
        while not self._stop.wait(FLUSH_S):
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        try:
            self._file.write(b"".join(lines))
        except OSError as error:  # a full disk must not end the log for good
            log.error("%d lines of the access log are lost: %s", len(lines), error)


class Recorder:
    """Turns what happens to a request into metrics, log lines, and one kind of error."""

    def __init__(
        self,
        metrics: Metrics,
        access_log: AccessLog | None = None,
        knows: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Record into these.

        Args:
            metrics: counts.
            access_log: a line for each request.
            knows: whether a model is configured: others are counted together, without a name, for clients
                must not be able to make as many counters as they like.
        """
        self.metrics = metrics
        self._knows = knows
        self._access_log = access_log

    @contextmanager
    def request(self, entrypoint: str, api: str) -> Iterator[Record]:
        """Around the handling of one request.

        Raises:
            ServingError: whatever was raised inside, as the error that the client gets.
        """
        record = Record(entrypoint, api)
        start = time.perf_counter()
        try:
            try:
                yield record
            except ServingError:
                raise
            except TimeoutError:
                raise ServingError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded") from None
            except tf.errors.OpError as error:
                raise as_serving_error(error) from error
            except Exception as error:
                log.exception("%s %s of %s failed", entrypoint, api, record.model)
                raise ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}") from error
        except ServingError as error:
            record.code, record.message = error.code, error.message
            raise
        except BaseException:
            record.code = Code.CANCELLED
            raise
        finally:
            seconds = time.perf_counter() - start
            model = record.model if self._knows(record.model) else ""
            self.metrics.request(model, record.version, record.api, record.entrypoint, record.code, seconds)
            if self._access_log is not None:
                self._access_log.write(record, seconds)
