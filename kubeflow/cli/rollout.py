"""`mnist rollout`: a canary promoted or rolled back by the servers' own metrics."""

from __future__ import annotations

import time

import click

from kubeflow import rollout as canaries
from kubeflow.kserve import InferenceService
from kubeflow.rollout import Decision, Limits, Watch
from kubeflow.submit import seconds
from pipeline.errors import RefusedError


@click.command()
@click.argument("name", metavar="SERVICE")
@click.option("--namespace", help="Of the InferenceService. [default: kubectl's]")
@click.option(
    "--watch", default="10m", show_default=True, metavar="INTERVAL", help="How long, e.g. 30m or 2h."
)
@click.option(
    "--poll",
    type=click.FloatRange(min=0.05),
    default=15.0,
    show_default=True,
    help="Seconds between looks.",
)
@click.option(
    "--min-requests",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="That the canary has to have answered.",
)
@click.option(
    "--max-failures",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Share of requests that may fail beyond that of the version before.",
)
@click.option(
    "--max-slowdown",
    type=click.FloatRange(1),
    default=1.5,
    show_default=True,
    help="Limit of its mean latency, in times of that of the version before.",
)
def rollout(
    name: str,
    namespace: str | None,
    watch: str,
    poll: float,
    min_requests: int,
    max_failures: float,
    max_slowdown: float,
) -> None:
    """Watch a canary of KServe, then send all requests to it, or none.

    Works through kubectl. A canary that fails or is slow is rolled back as soon as enough requests show it.

    Exit code: 0 promoted, 1 rolled back, or too few requests to decide (it keeps its share), 2 bad input.
    """
    limits, watch_s = Limits(min_requests, max_failures, max_slowdown), seconds(watch)
    service = InferenceService(name, namespace)
    canary, before = service.revisions()
    seen = {revision: Watch() for revision in (canary, before)}

    def look() -> None:
        for revision, watched in seen.items():
            watched.look(service.traffic(revision))

    look()  # what was counted before does not count
    end = time.monotonic() + watch_s
    while True:
        time.sleep(poll)
        look()
        over = time.monotonic() >= end
        decision, why = canaries.decide(seen[canary].total, seen[before].total, limits, over)
        if decision is Decision.PROMOTE:
            service.promote()
            click.echo(f"{canary} gets all requests: {why}")
            return
        if decision is Decision.ROLL_BACK:
            service.roll_back()
            raise RefusedError(f"{canary} is rolled back, {before} gets all requests: {why}")
        if over:
            raise RefusedError(f"{canary} keeps its share, nothing is decided: {why} in {watch}")
