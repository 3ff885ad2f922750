"""A client of TF Serving's API, by gRPC or REST: of `mnist serve` and of any real TF Serving.

    with Client("127.0.0.1", 8500, model="mnist") as client:
        answer = client.predict({"image": images}, signature="pixels")
        answer.outputs["classes"]

TensorFlow is not imported.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

from numpy.typing import ArrayLike, NDArray

from serving.errors import Code, ServingError

TransportName = Literal["grpc", "rest"]
DEFAULT_PORTS: dict[TransportName, int] = {"grpc": 8500, "rest": 8501}

# The server did not work on the request: to ask again can help, and harms nobody.
RETRIED = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED})
FIRST_PAUSE_S, PAUSE_GROWTH = 0.1, 2.0  # between attempts, before jitter

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """Which model is asked.

    Attributes:
        model: its served name.
        version: that version; None: the one that the server chooses, the newest.
        label: the version that carries this label; excludes `version`.
    """

    model: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        if self.version is not None and self.label is not None:
            raise ValueError("a version or a label, not both")


@dataclass(frozen=True)
class Tls:
    """PEM files for an encrypted connection.

    Attributes:
        ca: certificates that vouch for the server; None: those of the system.
        certificate, key: the client's own, for mutual TLS; both or none.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("a client certificate and its key belong together")


@dataclass(frozen=True)
class Answer:
    """What a model answered.

    Attributes:
        outputs: by name. JSON has no dtypes: by REST integers are int64, other numbers float64.
        version: which one answered; None by REST, which does not say it.
        latency_s: from the request to the answer, all attempts together.
    """

    outputs: dict[str, NDArray]
    version: int | None
    latency_s: float


@dataclass(frozen=True)
class TensorInfo:
    """Dtype (such as `DT_UINT8`) and shape of a tensor; None is an unknown dimension, or rank."""

    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """One way to ask a model: its inputs and outputs by name."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


@dataclass(frozen=True)
class Metadata:
    """A version of a model, and its signatures by name."""

    version: int
    signatures: dict[str, Signature]


@dataclass(frozen=True)
class VersionStatus:
    """State of a version: START, LOADING, AVAILABLE, UNLOADING or END; `error` is empty if all is well."""

    version: int
    state: str
    error: str


class Transport(Protocol):
    """How requests travel. Each method raises ServingError; `timeout_s` bounds one attempt."""

    def predict(
        self, target: Target, inputs: Mapping[str, ArrayLike], signature: str, timeout_s: float
    ) -> tuple[dict[str, NDArray], int | None]:
        """The outputs by name, and the version that answered."""

    def status(self, target: Target, timeout_s: float) -> dict[str, Any]:
        """GetModelStatusResponse as JSON."""

    def metadata(self, target: Target, timeout_s: float) -> dict[str, Any]:
        """GetModelMetadataResponse as JSON."""

    def close(self) -> None:
        """Give the connections back."""


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
        from serving.client_grpc import GrpcTransport

        return GrpcTransport(host, port, tls)
    from serving.client_rest import RestTransport

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
