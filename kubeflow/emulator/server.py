"""Kubeflow Pipelines' API (v2beta1) in front of the emulator: what is submitted is executed here.

It has what `mnist submit`, `schedule`, `kubeflow status` and kfp's own client need for experiments, runs
and recurring runs, for one user and without any check of who asks. Runs take turns. Nothing outlives the
process but the store.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as kfp
import yaml

from kubeflow import cron, spec
from kubeflow.emulator import run as emulator
from pipeline.errors import UserError
from pipeline.nodes import NodeState

Json = Any
Detail: TypeAlias = kfp.V2beta1PipelineTaskDetail
_PREFIX = "/apis/v2beta1/"
_STATES = {NodeState.DONE: "SUCCEEDED", NodeState.CACHED: "SUCCEEDED", NodeState.FAILED: "FAILED"}

logger = logging.getLogger(__name__)


class NotTakenError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Steps:
    """The steps of a run as the backend tells them; an Observer of the emulator."""

    nodes: list[str] = field(default_factory=list)
    details: dict[str, Detail] = field(default_factory=dict)

    def planned(self, nodes: list[str]) -> None:
        """Remember the nodes, none of which has a step yet."""
        self.nodes = nodes

    def started(self, node: str) -> None:
        """The driver is done, the node's container runs."""
        now = datetime.now(UTC)
        self._put(f"{node}-driver", node, "SUCCEEDED", now, now)
        self._put(node, node, "RUNNING", now)
        self._put("executor", node, "RUNNING", now)

    def finished(self, node: str, state: str, seconds: float) -> None:  # noqa: ARG002 (it has its own times)
        """End the node's steps as the backend does."""
        now = datetime.now(UTC)
        if state == NodeState.SKIPPED:  # Argo omits it: a step without a state
            self._put(node, node, None, now, now)
            return
        begun = now if state == NodeState.CACHED else self.details[f"{node}/{node}"].start_time
        self._put(node, node, _STATES[NodeState(state)], begun, now)
        container = "SKIPPED" if state == NodeState.CACHED else _STATES[NodeState(state)]
        self._put("executor", node, container, begun, now)

    def _put(
        self, name: str, node: str, state: str | None, begun: datetime, ended: datetime | None = None
    ) -> None:
        self.details[f"{node}/{name}"] = Detail(
            task_id=str(uuid.uuid4()), display_name=name, state=state, start_time=begun, end_time=ended
        )


@dataclass
class _Run:
    sent: Json
    created: datetime
    schedule: str | None = None
    steps: Steps = field(default_factory=Steps)
    state: str = "PENDING"
    error: str = ""


@dataclass
class _Schedule:
    """A recurring run, and whether it goes on."""

    recurring_id: str
    sent: Json
    upcoming: Callable[[datetime], datetime | None]
    begin: datetime
    end: datetime | None
    ended: threading.Event = field(default_factory=threading.Event)


class Server:
    """The API; safe to call from several threads.

    Args:
        options: where and how runs are executed; a run's own pipeline root counts.
    """

    def __init__(self, options: emulator.Options) -> None:
        self._options = options
        self._experiments: dict[str, kfp.V2beta1Experiment] = {}
        self._runs: dict[str, _Run] = {}
        self._schedules: dict[str, _Schedule] = {}
        self._turns = ThreadPoolExecutor(1)

    def close(self) -> None:
        """Start no further run."""
        for schedule in self._schedules.values():
            schedule.ended.set()
        self._turns.shutdown(wait=False, cancel_futures=True)

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Json) -> Json:
        """A model of kfp-server-api for one call.

        Raises:
            NotTakenError: for what the server does not have or refuses.
        """
        match method, path.removeprefix(_PREFIX).split("/"):
            case "GET", ["healthz"]:
                return kfp.V2beta1GetHealthzResponse(multi_user=False)
            case "GET", ["experiments"]:
                return kfp.V2beta1ListExperimentsResponse(experiments=self._experiments_named(query))
            case "POST", ["experiments"]:
                name = body["display_name"]
                made = kfp.V2beta1Experiment(experiment_id=str(uuid.uuid4()), display_name=name)
                return self._experiments.setdefault(name, made)
            case "POST", ["runs"]:
                return self._told(self._start(body))
            case "GET", ["runs"]:
                return self._list_runs(query)
            case "GET", ["runs", run_id] if run_id in self._runs:
                return self._told(run_id)
            case "GET", ["runs", run_id]:
                raise NotTakenError(404, f"Failed to get a run: Run {run_id} not found")
            case "POST", ["recurringruns"]:
                return self._schedule(body)
            case "GET", ["recurringruns"]:
                return kfp.V2beta1ListRecurringRunsResponse(
                    recurring_runs=[self._told_schedule(each) for each in self._schedules.values()]
                )
            case method, ["recurringruns", recurring_id] if recurring_id in self._schedules:
                schedule = self._schedules[recurring_id]
                if method == "GET":
                    return self._told_schedule(schedule)
                if method == "DELETE":
                    schedule.ended.set()
                    del self._schedules[recurring_id]
                    return {}
            case _, ["recurringruns", recurring_id]:
                raise NotTakenError(404, f"Recurring run {recurring_id} not found")
        raise NotTakenError(404, f"this emulator has no {method} {path}")

    def _experiments_named(self, query: Mapping[str, str]) -> list[kfp.V2beta1Experiment]:
        predicates = json.loads(query.get("filter") or '{"predicates": []}')["predicates"]
        wanted = {predicate["stringValue"] for predicate in predicates}
        return [one for name, one in self._experiments.items() if not wanted or name in wanted]

    def _list_runs(self, query: Mapping[str, str]) -> kfp.V2beta1ListRunsResponse:
        """A page of runs, which begins with the newest where that is asked for."""
        experiment = query.get("experiment_id")
        found = [i for i, run in self._runs.items() if experiment in (None, run.sent["experiment_id"])]
        if query.get("sort_by") == "created_at desc":
            found.reverse()
        shown = found[: int(query.get("page_size") or len(found) or 1)]
        return kfp.V2beta1ListRunsResponse(
            runs=[self._told(run_id) for run_id in shown], total_size=len(found)
        )

    def _start(self, sent: Json, schedule: str | None = None) -> str:
        file, parameters, options = self._checked(sent)
        run_id, run = str(uuid.uuid4()), _Run(sent, datetime.now(UTC), schedule)
        self._runs[run_id] = run
        self._turns.submit(self._execute, run, file, parameters, options)
        return run_id

    def _checked(self, sent: Json) -> tuple[spec.File, dict[str, Json], emulator.Options]:
        known = {experiment.experiment_id for experiment in self._experiments.values()}
        if sent.get("experiment_id") not in known:
            raise NotTakenError(400, "Invalid input error: the experiment does not exist")
        given = sent["pipeline_spec"]
        documents = [given.get("pipeline_spec", given), given.get("platform_spec")]
        config = sent.get("runtime_config") or {}
        try:
            file = spec.read(yaml.safe_dump_all([document for document in documents if document]))
            parameters = emulator.parameter_values(file, config.get("parameters") or {})
        except UserError as error:
            raise NotTakenError(400, f"Invalid input error: {error}") from None
        return file, parameters, self._options.with_root(config.get("pipeline_root") or "")

    def _execute(
        self, run: _Run, file: spec.File, parameters: dict[str, Json], options: emulator.Options
    ) -> None:
        run.state = "RUNNING"
        try:
            done = emulator.run(file, parameters, options, run.steps)
        except Exception as error:
            logger.exception("the run failed outside of its tasks")
            run.error, run.state = str(error), "FAILED"
            return
        run.error = "; ".join(
            f"{name}: {task.message}" for name, task in done.tasks.items() if task.message
        )
        run.state = "SUCCEEDED" if done.succeeded else "FAILED"

    def _told(self, run_id: str) -> kfp.V2beta1Run:
        run = self._runs[run_id]
        return kfp.V2beta1Run(
            run_id=run_id,
            display_name=run.sent["display_name"],
            experiment_id=run.sent["experiment_id"],
            recurring_run_id=run.schedule,
            created_at=run.created,
            pipeline_spec=run.sent["pipeline_spec"],
            runtime_config=run.sent.get("runtime_config"),
            state=run.state,
            error=kfp.GoogleRpcStatus(code=13, message=run.error) if run.error else None,
            run_details=kfp.V2beta1RunDetails(task_details=list(run.steps.details.values())),
        )

    def _schedule(self, sent: Json) -> kfp.V2beta1RecurringRun:
        self._checked(sent)
        now = datetime.now(UTC)
        periodic, cron_schedule = (
            sent["trigger"].get(kind) or {} for kind in ("periodic_schedule", "cron_schedule")
        )
        times = periodic or cron_schedule
        upcoming: Callable[[datetime], datetime | None]
        if seconds := int(periodic.get("interval_second") or 0):
            upcoming = lambda last: last + timedelta(seconds=seconds)  # noqa: E731
        else:
            try:
                upcoming = cron.parse(cron_schedule.get("cron") or "").after
            except cron.CronError as error:
                raise NotTakenError(400, f"Invalid input error: {error}") from None
        begin, end = (_moment(times.get(name)) for name in ("start_time", "end_time"))
        made = _Schedule(str(uuid.uuid4()), sent, upcoming, max(begin or now, now), end)
        self._schedules[made.recurring_id] = made
        threading.Thread(target=self._again, args=(made,), daemon=True).start()
        return self._told_schedule(made)

    def _told_schedule(self, schedule: _Schedule) -> kfp.V2beta1RecurringRun:
        status = "DISABLED" if schedule.ended.is_set() else "ENABLED"
        return kfp.V2beta1RecurringRun(
            recurring_run_id=schedule.recurring_id,
            display_name=schedule.sent["display_name"],
            status=status,
        )

    def _again(self, schedule: _Schedule) -> None:
        """Start the runs of a schedule until it ends; what cannot start in time is not made up for."""
        due = schedule.upcoming(schedule.begin)
        at_a_time = int(schedule.sent.get("max_concurrency") or 1)
        while due is not None and (schedule.end is None or due <= schedule.end):
            if schedule.ended.wait(max((due - datetime.now(UTC)).total_seconds(), 0)):
                return
            own = [run for run in self._runs.values() if run.schedule == schedule.recurring_id]
            if sum(run.state in ("PENDING", "RUNNING") for run in own) < at_a_time:
                self._start(schedule.sent, schedule.recurring_id)
            due = schedule.upcoming(max(due, datetime.now(UTC)))
        schedule.ended.set()


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


@contextmanager
def serving(options: emulator.Options, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve the API; yields its URL.

    Args:
        options: where and how runs are executed.
        host: the address to listen on.
        port: to listen on; 0: any free one.

    Raises:
        OSError: where the port is taken.
    """
    server = Server(options)

    def refusal(message: str) -> Json:
        return {"code": 3, "message": message, "details": []}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            try:
                result = server.answer(self.command, address.path, query, json.loads(raw) if raw else None)
                status, answer = 200, kfp.ApiClient().sanitize_for_serialization(result)
            except NotTakenError as error:
                status, answer = error.status, refusal(str(error))
            except (KeyError, TypeError, ValueError) as error:
                status, answer = (
                    400,
                    {"code": 3, "message": f"Invalid input error: {error!r}", "details": []},
                )
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_DELETE = do_GET = do_POST = _handle  # noqa: N815 (the base class looks for these names)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer((host, port), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{http.server_port}"
    finally:
        server.close()
        http.shutdown()
        http.server_close()
        thread.join()
