"""From a compiled file to a run on a cluster: check its parameters, start it, schedule it, follow it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import kfp_server_api

from kubeflow import data_changes, lint
from kubeflow.api import Api, ApiError, explained, passing, quiet
from kubeflow.settings import bucket
from kubeflow.spec import File, SpecError, read_file
from pipeline.errors import UserError

SUCCEEDED, FAILED, SKIPPED, CANCELED = "SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"
RUNNING, PENDING = "RUNNING", "PENDING"
# What the server does not tell by one word: taken from the cache, no pod yet, never begun.
CACHED, WAITING, NOT_RUN = "CACHED", "WAITING FOR ITS POD", "NOT RUN"
FINAL = frozenset({SUCCEEDED, FAILED, SKIPPED, CANCELED})
# The server gives a time before this one to what has not happened yet.
EPOCH = datetime(1971, 1, 1, tzinfo=UTC)
POD_WAIT_S = 60.0  # a pod that takes longer to start has a reason that a user should look at
SILENCE_S = 300.0  # how long a server may be away while a run is followed

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_CONTAINER = re.compile(r"executor(\([0-9]+\))?")

Detail: TypeAlias = kfp_server_api.V2beta1PipelineTaskDetail


class SubmitError(UserError):
    """An option that cannot be used: one line for a person."""


@dataclass(frozen=True)
class Package:
    """A compiled pipeline: the file, which kfp's client sends, and what is in it."""

    path: Path
    file: File

    def experiment(self, options: RunOptions) -> str:
        """The group that its runs belong to."""
        return options.experiment or self.file.name

    def looking_at_the_data(self, folder: Path) -> Package:
        """The same with a node that computes the data's fingerprint in each run, written below `folder`.

        Raises:
            SpecError: where the pipeline has no place for it.
        """
        try:
            file = data_changes.with_fingerprint_node(self.file)
        except SpecError as error:
            raise SpecError(f"{self.path}: {error}") from None
        path = folder / self.path.name
        path.write_text(file.to_yaml())
        return Package(path, file)


@dataclass(frozen=True)
class RunOptions:
    """How a run is started; what is None is as in the compiled file, or as the server does without it."""

    experiment: str | None = None
    name: str | None = None
    pipeline_root: str | None = None
    service_account: str | None = None
    cache: bool | None = None


@dataclass(frozen=True)
class Schedule:
    """When runs start: exactly one of `cron` and `every_s`.

    Attributes:
        cron: six fields, seconds first.
        every_s: seconds between two starts.
        catch_up: start the runs that were missed while the schedule was off or the server away.
        max_concurrency: runs of this schedule at the same time.
        start: of the schedule, RFC 3339; None: now.
        end: of the schedule, RFC 3339; None: never.
    """

    cron: str | None = None
    every_s: int | None = None
    catch_up: bool = False
    max_concurrency: int = 1
    start: str | None = None
    end: str | None = None


@dataclass(frozen=True)
class NodeStatus:
    """One node of a run; seconds are None until it has begun."""

    name: str
    state: str = PENDING
    seconds: float | None = None


@dataclass(frozen=True)
class RunState:
    """A run as it stands."""

    run_id: str
    name: str
    state: str
    nodes: tuple[NodeStatus, ...]
    error: str = ""

    @property
    def failed(self) -> list[str]:
        """Names of the nodes that failed."""
        return [node.name for node in self.nodes if node.state == FAILED]

    @property
    def without_pod(self) -> list[str]:
        """Names of the nodes that have waited for their pods for a minute or more."""
        return [n.name for n in self.nodes if n.state == WAITING and (n.seconds or 0) >= POD_WAIT_S]


def read_package(path: Path) -> Package:
    """Read a compiled file.

    Raises:
        SpecError: where it is none, or its nodes wait for each other.
        OSError: where it cannot be read.
    """
    file = read_file(path)
    file.order()
    return Package(path, file)


def seconds(text: str) -> int:
    """The seconds of "90s", "30m", "6h" or "1d"; raises SubmitError."""
    match = re.fullmatch(r"([0-9]+)([smhd])", text)
    if not match or not int(match[1]):
        raise SubmitError(f"{text!r} is no interval: write 30m, 6h or 1d")
    return int(match[1]) * _UNITS[match[2]]


def moment(text: str | None) -> str | None:
    """A point in time as RFC 3339, None for None; raises SubmitError."""
    if text is None:
        return None
    try:
        time_given = datetime.fromisoformat(text)
    except ValueError:
        raise SubmitError(f"{text!r} is no time: write 2030-01-31T00:00:00Z") from None
    if time_given.tzinfo is None:
        raise SubmitError(f"{text!r} has no time zone: write {text}Z for UTC")
    return time_given.isoformat()


def submit(api: Api, package: Package, options: RunOptions, parameters: dict[str, Any]) -> str:
    """Start a run; returns its id.

    Raises:
        ApiError: where the server does not take it.
    """
    experiment_id = _experiment(api, package.experiment(options))
    with explained(api.host, "start a run"), quiet():
        run = api.client.run_pipeline(
            experiment_id=experiment_id,
            job_name=options.name or _name_for_now(package),
            pipeline_package_path=str(package.path),
            params=parameters,
            pipeline_root=_pipeline_root(package, options, parameters),
            enable_caching=options.cache,
            service_account=options.service_account or package.file.service_account,
        )
    return str(run.run_id)


def run_within(api: Api, experiment: str, interval_s: int) -> datetime | None:
    """When the newest run of an experiment was made, where that is less than so many seconds ago.

    Whoever started it, and whatever became of it. The server is asked, so no pod has to remember anything.

    Raises:
        ApiError: where the server does not say it.
    """
    experiment_id = _experiment(api, experiment)
    with explained(api.host, f"list the runs of {experiment!r}"), quiet():
        found = api.client.list_runs(
            page_size=1, sort_by="created_at desc", experiment_id=experiment_id, namespace=api.namespace
        )
    made = [run.created_at for run in found.runs or ()]
    return next((at for at in made if datetime.now(UTC) - at < timedelta(seconds=interval_s)), None)


def schedule(
    api: Api, package: Package, options: RunOptions, parameters: dict[str, Any], when: Schedule
) -> str:
    """Start a run again and again; returns the schedule's id.

    Raises:
        ApiError: where the server does not take it.
    """
    experiment_id = _experiment(api, package.experiment(options))
    with explained(api.host, "make a schedule"), quiet():
        recurring = api.client.create_recurring_run(
            experiment_id=experiment_id,
            job_name=options.name or package.file.name,
            start_time=when.start,
            end_time=when.end,
            interval_second=when.every_s,
            cron_expression=when.cron,
            max_concurrency=when.max_concurrency,
            no_catchup=not when.catch_up,
            params=parameters,
            pipeline_package_path=str(package.path),
            pipeline_root=_pipeline_root(package, options, parameters),
            enable_caching=options.cache,
            service_account=options.service_account or package.file.service_account,
        )
    return str(recurring.recurring_run_id)


def status(api: Api, run_id: str) -> RunState:
    """A run as it stands.

    Raises:
        ApiError: where there is no such run, or no way to see it.
    """
    with explained(api.host, f"show the run {run_id}"):
        return run_state(api.get_run(run_id))


def follow(
    api: Api, run_id: str, poll_s: float = 5.0, sleep: Callable[[float], None] = time.sleep
) -> Iterator[RunState]:
    """A run as it stands, again and again until it has ended.

    kfp's own `wait_for_run_completion` says nothing of the nodes, and never returns for a cancelled run.
    A server that is away for a while is waited for.

    Raises:
        ApiError: where the server refuses, or is away for more than five minutes.
    """
    away_since: float | None = None
    while True:
        try:
            state = run_state(api.get_run(run_id))
        except Exception as error:
            now = time.monotonic()
            away_since = away_since or now
            if not passing(error) or now - away_since > SILENCE_S:
                with explained(api.host, f"show the run {run_id}"):
                    raise
        else:
            away_since = None
            yield state
            if state.state in FINAL:
                return
        sleep(poll_s)


def _pipeline_root(package: Package, options: RunOptions, parameters: Mapping[str, Any]) -> str | None:
    """The root to send: no part of a server reads the one in the file.

    Raises:
        SubmitError: where the first node of the run could not download its data.
    """
    root = options.pipeline_root or package.file.pipeline_root
    if options.pipeline_root and bucket(options.pipeline_root) is None:
        raise SubmitError(f"--pipeline-root {options.pipeline_root}: must be minio://, s3:// or gs://")
    if root:
        for finding in lint.imports(package.file, root, parameters):
            raise SubmitError(str(finding))
    return root or None


def _experiment(api: Api, name: str) -> str:
    """The id of an experiment, made where there is none of that name."""
    with explained(api.host, f"use the experiment {name!r}"), quiet():
        try:
            return str(api.client.create_experiment(name, namespace=api.namespace).experiment_id)
        except ValueError as error:  # several of that name
            raise ApiError(f"{api.host}: {error}") from None


def _name_for_now(package: Package) -> str:
    return f"{package.file.name} {datetime.now().astimezone():%Y-%m-%d %H:%M:%S}"


def run_state(run: kfp_server_api.V2beta1Run) -> RunState:
    """What a run and its steps come to, in words of nodes."""
    details = (run.run_details and run.run_details.task_details) or []
    # The server gives back what it was given: one document, or two under names of their own.
    spec = (run.pipeline_spec or {}).get("pipeline_spec") or run.pipeline_spec or {}
    names = File(spec, {}).order()
    if not names:  # started from an uploaded pipeline, whose spec is not part of the run
        drivers = {detail.display_name for detail in details}
        begun = sorted(details, key=lambda detail: detail.start_time or EPOCH)
        names = [d.display_name for d in begun if f"{d.display_name}-driver" in drivers - {"root-driver"}]
    final = run.state in FINAL
    return RunState(
        str(run.run_id),
        run.display_name or "",
        run.state or PENDING,
        tuple(_node_status(name, details, final) for name in names),
        (run.error and run.error.message) or "",
    )


def _node_status(name: str, details: list[Detail], final: bool) -> NodeStatus:
    """What the steps of a node come to: its driver, which looks into the cache, and its own container."""
    node = NodeStatus(name, NOT_RUN if final else PENDING)
    steps = {detail.display_name: detail for detail in details}
    for step in (steps.get(f"{name}-driver"), steps.get(name)):
        # Argo omits what comes after a failed node: such a step has no state.
        if step is None or not step.state:
            continue
        state = step.state
        # A driver that is done is not a node that is done.
        if state in (SUCCEEDED, SKIPPED) and step.display_name != name:
            state = RUNNING
        elif state in (SUCCEEDED, RUNNING) and step.display_name == name:
            state = _of_container(step, details)
        begun = step.start_time and step.start_time > EPOCH and step.start_time
        ended = step.end_time and step.end_time > EPOCH and step.end_time
        spent = ((ended or datetime.now(UTC)) - begun).total_seconds() if begun else None
        if node.seconds is not None and spent is not None and state != WAITING:
            spent += node.seconds
        node = replace(node, state=state, seconds=spent if spent is not None else node.seconds)
        if state == FAILED:
            break
    return node


def _of_container(step: Detail, details: list[Detail]) -> str:
    """The state of a node whose driver is done, by the steps for its container.

    These are called `executor` and, with retries, `executor(0)`, whatever the node; they begin with it.
    """
    own = [
        detail
        for detail in details
        if _CONTAINER.fullmatch(detail.display_name or "") and detail.start_time == step.start_time
    ]
    if step.state == SUCCEEDED:
        skipped = [detail for detail in own if detail.state == SKIPPED]
        return CACHED if skipped and step.end_time == step.start_time else SUCCEEDED
    return WAITING if any(detail.state == PENDING for detail in own) else RUNNING
