"""What the client and its transports share: whom to ask, how to connect, what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import ArrayLike, NDArray

TransportName = Literal["grpc", "rest"]
DEFAULT_PORTS: dict[TransportName, int] = {"grpc": 8500, "rest": 8501}


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
