"""Metrics of several processes."""

from __future__ import annotations

from serving.protocol.errors import Code
from serving.server.telemetry.metrics import Metrics, page_of_all


def test_processes_are_added_up() -> None:
    first, second, one = Metrics(), Metrics(), Metrics()
    for metrics in (first, one):
        metrics.request("m", "1", "Predict", "REST", Code.OK, 0.001)
        metrics.batch("m", 3, 0.001)
    for metrics in (second, one):
        metrics.request("m", "1", "Predict", "REST", Code.OK, 2.0)
        metrics.request("m", "2", "Predict", "GRPC", Code.NOT_FOUND, 1.0)
        metrics.batch("n", 4, 0.5)

    both = page_of_all([first.families(), second.families()])

    assert sorted(both.splitlines()) == sorted(one.page().splitlines())
    assert b'request_latency_count{API="Predict",entrypoint="REST",model_name="m",version="1"} 2.0' in both
