"""Metrics under TF Serving's own names, for Prometheus: `:tensorflow:serving:request_count` and so on.

Beyond TF Serving's labels, requests are counted by model version too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from serving.protocol.errors import Code

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# TF Serving's Buckets::Exponential(10, 1.8, 33), in microseconds: up to about 20 minutes.
LATENCY_BUCKETS_US = tuple(10 * 1.8**power for power in range(33))
# Buckets::Exponential(1, 2, 15), in examples.
EXAMPLE_BUCKETS = tuple(float(2**power) for power in range(15))

disable_created_metrics()  # type: ignore[no-untyped-call]


class Counter(Collector):
    """Counts by labels.

    The client library's own counter puts `_total` behind a name, which TF Serving does not.
    """

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...]) -> None:
        """Start at nothing."""
        self._name, self._documentation, self._labels = name, documentation, labels
        self._values: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, *labels: str, by: int = 1) -> None:
        """Count."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0) + by

    def total(self) -> int:
        """The sum over all labels."""
        with self._lock:
            return sum(self._values.values())

    def collect(self) -> Iterator[Metric]:
        """For the client library."""
        metric = Metric(self._name, self._documentation, "untyped")
        with self._lock:
            for values, count in self._values.items():
                metric.add_sample(self._name, dict(zip(self._labels, values, strict=True)), count)
        yield metric


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        """A registry of its own: several servers may live in one process."""
        self._registry = CollectorRegistry()
        self._request_count = self._counter(
            "request_count", "The total number of requests.", "model_name", "status", "version"
        )
        self._example_total = self._counter(
            "request_example_count_total", "The total number of tensorflow.Examples.", "model"
        )
        self.log_count = self._counter(
            "request_log_count", "The total number of requests logged.", "model_name", "status"
        )
        self._latency = self._histogram(
            "request_latency",
            "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
            LATENCY_BUCKETS_US,
            "model_name",
            "API",
            "entrypoint",
            "version",
        )
        self._runtime = self._histogram(
            "runtime_latency",
            "Distribution of wall time (in microseconds) for Tensorflow runtime.",
            LATENCY_BUCKETS_US,
            "model_name",
        )
        self._batch_size = self._histogram(
            "batching_session:processed_batch_size", "Examples in a batch.", EXAMPLE_BUCKETS, "model_name"
        )

    def request(
        self, model: str, version: str, api: str, entrypoint: str, code: Code, seconds: float
    ) -> None:
        """Count an answered request; its latency counts when it went well, as in TF Serving."""
        self._request_count.add(model, code.name, version)
        if code is Code.OK:
            self._latency.labels(model, api, entrypoint, version).observe(seconds * 1e6)

    def batch(self, model: str, examples: int, seconds: float) -> None:
        """Count a run of a model."""
        self._runtime.labels(model).observe(seconds * 1e6)
        self._batch_size.labels(model).observe(examples)
        self._example_total.add(model, by=examples)

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def families(self) -> list[Metric]:
        """All metrics, for `page_of_all`."""
        return list(self._registry.collect())

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        counter = Counter(f":tensorflow:serving:{name}", documentation, labels)
        self._registry.register(counter)
        return counter

    def _histogram(
        self, name: str, documentation: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f":tensorflow:serving:{name}", documentation, labels, buckets=buckets, registry=self._registry
        )


class _Sum(Collector):
    """Metrics of several processes, added up: all of them are counts and sums."""

    def __init__(self, processes: Sequence[Sequence[Metric]]) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        """For the client library."""
        for families in zip(*self._processes, strict=True):
            first = families[0]
            values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
            for family in families:
                for sample in family.samples:
                    key = sample.name, tuple(sample.labels.items())
                    values[key] = values.get(key, 0) + sample.value
            metric = Metric(first.name, first.documentation, first.type)
            for (name, labels), value in values.items():
                metric.add_sample(name, dict(labels), value)
            yield metric


def page_of_all(processes: Sequence[Sequence[Metric]]) -> bytes:
    """The families of several processes, added up, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Sum(processes))
    return generate_latest(registry)
