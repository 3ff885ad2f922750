"""The client: one model on one server, calls that are tried again, answers as arrays."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

from numpy.typing import ArrayLike

from serving.client.grpc import GrpcTransport
from serving.client.rest import RestTransport
from serving.client.types import (
    DEFAULT_PORTS,
    Answer,
    Metadata,
    Signature,
    Target,
    TensorInfo,
    Tls,
    Transport,
    TransportName,
    VersionStatus,
)
from serving.protocol.errors import Code, ServingError

# The server did not work on the request: to ask again can help, and harms nobody.
RETRIED = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED})
FIRST_PAUSE_S, PAUSE_GROWTH = 0.1, 2.0  # between attempts, before jitter

T = TypeVar("T")


class Client:
    """Asks one model on one server; safe to be used by several threads; a context manager.

    Connections are kept and used again. A request that the server could not take (UNAVAILABLE,
    RESOURCE_EXHAUSTED) is sent again after a pause that grows, until the deadline or the last attempt.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | None = None,
        transport: TransportName = "grpc",
        *,
        model: str = "mnist",
        version: int | None = None,
        label: str | None = None,
        timeout_s: float = 10.0,
        attempts: int = 4,
        tls: Tls | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            host: name or address of the server.
            port: its port; None: TF Serving's own for the transport.
            transport: "grpc" or "rest".
            model: served name of the model.
            version: ask this version.
            label: ask the version with this label.
            timeout_s: deadline of a call, all its attempts together.
            attempts: how often a call is tried at most.
            tls: encrypt, with these files.

        Raises:
            ValueError: for settings that exclude each other or are out of range.
            OSError: for a TLS file that cannot be read.
        """
        if timeout_s <= 0 or attempts < 1:
            raise ValueError("timeout_s must be positive, attempts at least 1")
        if transport not in DEFAULT_PORTS:
            raise ValueError(f"transport must be grpc or rest, not {transport!r}")
        self.target = Target(model, version, label)
        self._timeout_s, self._attempts = timeout_s, attempts
        self._transport = _connect(transport, host, port or DEFAULT_PORTS[transport], tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def predict(self, inputs: Mapping[str, ArrayLike], signature: str = "serving_default") -> Answer:
        """Ask the model.

        Args:
            inputs: the signature's inputs by name; strings as an array or list of bytes.
            signature: name of the signature.

        Raises:
            ServingError: as the server answered, or UNAVAILABLE where none did, DEADLINE_EXCEEDED.
        """
        began_at = time.perf_counter()
        outputs, version = self._call(
            lambda timeout_s: self._transport.predict(self.target, inputs, signature, timeout_s)
        )
        return Answer(outputs, version or self.target.version, time.perf_counter() - began_at)

    def status(self) -> list[VersionStatus]:
        """State of each version that the server knows, newest first; raises ServingError."""
        found = self._call(lambda timeout_s: self._transport.status(self.target, timeout_s))
        return [
            VersionStatus(int(one["version"]), one["state"], one.get("status", {}).get("error_message", ""))
            for one in found.get("model_version_status", [])
        ]

    def metadata(self) -> Metadata:
        """Version and signatures of the model; raises ServingError."""
        found = self._call(lambda timeout_s: self._transport.metadata(self.target, timeout_s))
        signatures = found["metadata"]["signature_def"]["signature_def"]
        return Metadata(
            version=int(found["model_spec"]["version"]),
            signatures={
                name: Signature(_tensors(signature, "inputs"), _tensors(signature, "outputs"))
                for name, signature in signatures.items()
            },
        )

    def _call(self, attempt: Callable[[float], T]) -> T:
        ends_at = time.monotonic() + self._timeout_s
        pause_s = FIRST_PAUSE_S
        for left in reversed(range(self._attempts)):
            try:
                return attempt(max(ends_at - time.monotonic(), 1e-3))
            except ServingError as error:
                wait_s = pause_s * random.uniform(0.5, 1.0)  # many clients must not come back at once
                if error.code not in RETRIED or not left or time.monotonic() + wait_s >= ends_at:
                    raise
            time.sleep(wait_s)
            pause_s *= PAUSE_GROWTH
        raise AssertionError("the last attempt returns or raises")


def _connect(transport: TransportName, host: str, port: int, tls: Tls | None) -> Transport:
    if transport == "grpc":
        return GrpcTransport(host, port, tls)
    return RestTransport(host, port, tls)


def _tensors(signature: Mapping[str, Any], side: str) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(info["dtype"], _shape(info.get("tensor_shape", {})))
        for name, info in signature.get(side, {}).items()
    }


def _shape(shape: Mapping[str, Any]) -> tuple[int | None, ...] | None:
    if shape.get("unknown_rank"):
        return None
    sizes = [int(dimension["size"]) for dimension in shape.get("dim", [])]
    return tuple(size if size >= 0 else None for size in sizes)
