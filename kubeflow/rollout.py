"""A canary of a served model: whether it gets all requests or none, by what the servers count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from prometheus_client.parser import text_string_to_metric_families

from serving.protocol.errors import Code

METRICS_PATH = "monitoring/prometheus/metrics"
REQUESTS, LATENCY = ":tensorflow:serving:request_count", ":tensorflow:serving:request_latency"
# What a client sent wrongly is no fault of the model.
FAULTS = frozenset(
    code.name
    for code in (
        Code.UNKNOWN,
        Code.DEADLINE_EXCEEDED,
        Code.RESOURCE_EXHAUSTED,
        Code.ABORTED,
        Code.INTERNAL,
        Code.UNAVAILABLE,
        Code.DATA_LOSS,
    )
)


class MetricsError(ValueError):
    """A text that is not Prometheus' format."""


@dataclass(frozen=True)
class Traffic:
    """What servers have answered.

    Attributes:
        requests: how many.
        faults: how many of them failed by a fault of the server.
        timed: how many went well and count in `seconds`.
        seconds: that these took, together.
    """

    requests: float = 0
    faults: float = 0
    timed: float = 0
    seconds: float = 0

    def __add__(self, other: Traffic) -> Traffic:
        """Both together."""
        return Traffic(*(a + b for a, b in zip(self._values(), other._values(), strict=True)))

    def since(self, before: Traffic) -> Traffic:
        """What came after `before`; a server that counts less than before was started again."""
        if self.requests < before.requests:
            return self
        return Traffic(*(a - b for a, b in zip(self._values(), before._values(), strict=True)))

    @property
    def fault_ratio(self) -> float:
        """Faults per request; 0 without requests."""
        return self.faults / self.requests if self.requests else 0.0

    @property
    def latency_s(self) -> float | None:
        """Mean seconds of a request that went well; None without any."""
        return self.seconds / self.timed if self.timed else None

    def _values(self) -> tuple[float, float, float, float]:
        return self.requests, self.faults, self.timed, self.seconds


def read(text: str, model: str) -> Traffic:
    """The traffic of a model in a server's metrics page, since the server began.

    Raises:
        MetricsError: for another text.
    """
    found = Traffic()
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.labels.get("model_name") != model:
                    continue
                if sample.name == REQUESTS:
                    fault = sample.labels.get("status") in FAULTS
                    found += Traffic(requests=sample.value, faults=sample.value if fault else 0)
                elif sample.name == f"{LATENCY}_count":
                    found += Traffic(timed=sample.value)
                elif sample.name == f"{LATENCY}_sum":
                    found += Traffic(seconds=sample.value / 1e6)
    except ValueError as error:
        raise MetricsError(f"not a page of metrics: {error}") from None
    return found


@dataclass
class Watch:
    """Traffic since the watch began, over servers that come and go.

    Attributes:
        seen: what each server had counted at the last look, by pod.
        total: since the first look.
    """

    seen: dict[str, Traffic] | None = None
    total: Traffic = field(default_factory=Traffic)

    def look(self, pods: Mapping[str, Traffic]) -> None:
        """Add what came since the last look; the first look is where counting begins."""
        if self.seen is None:
            self.seen = dict(pods)
            return
        for pod, now in pods.items():
            self.total += now.since(self.seen.get(pod, Traffic()))
            self.seen[pod] = now


class Decision(StrEnum):
    """What becomes of a canary."""

    WAIT = "wait"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"


@dataclass(frozen=True)
class Limits:
    """What a canary may do.

    Attributes:
        requests: that it has to have answered before anything is decided.
        faults: share of its requests that may fail more than of the others.
        slowdown: its mean latency may be so many times that of the others.
    """

    requests: int = 200
    faults: float = 0.01
    slowdown: float = 1.5


def decide(canary: Traffic, others: Traffic, limits: Limits, over: bool) -> tuple[Decision, str]:
    """What to do with a canary, and why.

    A bad canary is rolled back as soon as enough requests show it, a good one promoted at the end.

    Args:
        canary: its traffic since the watch began.
        others: that of the version before it.
        limits: what it may do.
        over: whether the time to watch is over.
    """
    if canary.requests < limits.requests:
        return Decision.WAIT, f"{canary.requests:.0f} of {limits.requests} requests"
    if canary.fault_ratio > others.fault_ratio + limits.faults:
        return (
            Decision.ROLL_BACK,
            f"{canary.fault_ratio:.1%} of its requests fail, before {others.fault_ratio:.1%}",
        )
    if canary.latency_s and others.latency_s and canary.latency_s > limits.slowdown * others.latency_s:
        return (
            Decision.ROLL_BACK,
            f"a request takes {canary.latency_s * 1e3:.1f} ms, before {others.latency_s * 1e3:.1f} ms",
        )
    if not over:
        return Decision.WAIT, f"{canary.requests:.0f} requests, {canary.fault_ratio:.1%} of them failed"
    return Decision.PROMOTE, f"{canary.requests:.0f} requests, {canary.fault_ratio:.1%} of them failed"
