"""`mnist submit` and `mnist schedule`: a compiled pipeline to Kubeflow Pipelines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.errors import BAD_INPUT, INTERRUPTED, REJECTED, fail

if TYPE_CHECKING:
    from kubeflow.api import Api
    from kubeflow.submit import RunOptions, RunState

Command = Callable[..., Any]
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)

ACCESS = (
    click.option("--host", metavar="URL", help="Kubeflow Pipelines; not needed inside its cluster."),
    click.option("--namespace", help="Your namespace, where Kubeflow has several users."),
    click.option("--token-file", type=FILE, help="File of a bearer token; read again for each request."),
    click.option(
        "--existing-token", metavar="TOKEN", envvar="KFP_TOKEN", help="A bearer token. [env: KFP_TOKEN]"
    ),
    click.option("--ca-file", type=FILE, help="Certificates that the server's own is checked against."),
)
RUN = (
    click.option("--experiment", help="Group of runs. [default: the pipeline's name]"),
    click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="A parameter; repeatable."),
    click.option("--pipeline-root", metavar="URI", help="Folder of the artifacts, e.g. s3://bucket/mnist."),
    click.option("--service-account", help="Account of the run's pods. [default: as compiled]"),
    click.option("--no-cache", is_flag=True, help="Run every node, even where nothing changed."),
)


def with_options(options: tuple[Callable[[Command], Command], ...]) -> Callable[[Command], Command]:
    """One decorator for several options, in the order in which `--help` shows them."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command()
@click.argument("package", metavar="FILE", type=FILE)
@with_options(ACCESS)
@click.option("--run-name", help="Name of the run. [default: the pipeline's name and the time]")
@with_options(RUN)
@click.option("--wait", is_flag=True, help="Follow the run; exit 1 when it fails.")
@click.option(
    "--poll", type=click.FloatRange(min=0.05), default=5.0, show_default=True, help="Seconds between looks."
)
def submit(package: Path, run_name: str | None, wait: bool, poll: float, **options: Any) -> None:
    """Start a run of a compiled pipeline (`mnist compile`).

    Exit code: 0 submitted (with --wait: succeeded), 1 the run failed or the server refused, 2 bad input,
    130 interrupted (the run goes on).
    """
    with submit_errors():
        from kubeflow import submit as kubeflow_submit

        compiled = kubeflow_submit.read_package(package)
        parameters = kubeflow_submit.arguments(compiled, options["params"])
        api = connect(options)
        run_id = kubeflow_submit.submit(api, compiled, run_options(run_name, options), parameters)
        click.echo(f"run {run_id}\n{api.run_page(run_id)}")
        if wait:
            sys.exit(wait_for(api, run_id, poll))


@click.command()
@click.argument("package", metavar="FILE", type=FILE)
@with_options(ACCESS)
@click.option(
    "--cron", metavar="FIELDS", help='Six fields, seconds first: "0 0 3 * * *" is each day at 3:00.'
)
@click.option("--every", metavar="INTERVAL", help="Instead of --cron: 30m, 6h, 1d.")
@click.option("--catch-up", is_flag=True, help="Start the runs that were missed, too.")
@click.option(
    "--max-concurrency",
    type=click.IntRange(1, 10),
    default=1,
    show_default=True,
    help="Runs of this schedule at the same time.",
)
@click.option("--start", metavar="TIME", help="Begin of the schedule, e.g. 2030-01-31T00:00:00Z.")
@click.option("--end", metavar="TIME", help="End of the schedule.")
@click.option("--name", help="Name of the schedule. [default: the pipeline's name]")
@with_options(RUN)
def schedule(
    package: Path,
    cron: str | None,
    every: str | None,
    catch_up: bool,
    max_concurrency: int,
    start: str | None,
    end: str | None,
    name: str | None,
    **options: Any,
) -> None:
    """Run a compiled pipeline again and again.

    Exit code: 0 scheduled, 1 the server refused, 2 bad input.
    """
    with submit_errors():
        from kubeflow import submit as kubeflow_submit

        if (cron is None) == (every is None):
            fail("give --cron or --every: when shall it run?")
        when = kubeflow_submit.Schedule(
            cron=None if cron is None else kubeflow_submit.cron(cron),
            every_s=None if every is None else kubeflow_submit.seconds(every),
            catch_up=catch_up,
            max_concurrency=max_concurrency,
            start=kubeflow_submit.moment(start),
            end=kubeflow_submit.moment(end),
        )
        compiled = kubeflow_submit.read_package(package)
        parameters = kubeflow_submit.arguments(compiled, options["params"])
        api = connect(options)
        schedule_id = kubeflow_submit.schedule(api, compiled, run_options(name, options), parameters, when)
        click.echo(f"schedule {schedule_id}\n{api.host}/#/recurringrun/details/{schedule_id}")


@contextmanager
def submit_errors() -> Iterator[None]:
    """One line for what a person can mend: exit code 2 before anything was sent, 1 for the server's no."""
    from kubeflow.api import AccessError, ApiError
    from kubeflow.submit import SubmitError

    try:
        yield
    except (AccessError, SubmitError) as error:
        fail(error, BAD_INPUT)
    except ApiError as error:
        fail(error, REJECTED)
    except OSError as error:
        fail(f"{error.filename or 'system'}: {error.strerror or error}", BAD_INPUT)


def connect(options: dict[str, Any]) -> Api:
    """A connection as the options of ACCESS say."""
    from kubeflow import api

    return api.connect(
        api.Access(
            host=options["host"],
            namespace=options["namespace"],
            token_file=options["token_file"],
            token=options["existing_token"],
            ca_file=options["ca_file"],
        )
    )


def run_options(name: str | None, options: dict[str, Any]) -> RunOptions:
    """How a run is started, as the options of RUN say."""
    from kubeflow.submit import RunOptions

    return RunOptions(
        experiment=options["experiment"],
        name=name,
        pipeline_root=options["pipeline_root"],
        service_account=options["service_account"],
        cache=False if options["no_cache"] else None,
    )


def wait_for(api: Api, run_id: str, poll_s: float) -> int:
    """Show the nodes as they go; returns the exit code."""
    from kubeflow import submit as kubeflow_submit

    shown: dict[str, str] = {}
    state = None
    try:
        for state in kubeflow_submit.follow(api, run_id, poll_s):
            for node in state.nodes:
                if shown.get(node.name, kubeflow_submit.PENDING) != node.state:
                    shown[node.name] = node.state
                    click.echo(node_line(node.name, node.state, node.seconds))
    except KeyboardInterrupt:
        click.echo(f"no longer following; the run goes on: mnist kubeflow status {run_id}")
        return INTERRUPTED
    assert state is not None
    return verdict(state, api)


def verdict(state: RunState, api: Api) -> int:
    """Say how a run ended, naming the nodes that failed; returns the exit code."""
    from kubeflow.submit import SKIPPED, SUCCEEDED

    if state.state in (SUCCEEDED, SKIPPED):
        click.echo(f"run {state.run_id}: {state.state.lower()}")
        return 0
    where = f" in {', '.join(state.failed)}" if state.failed else ""
    why = f": {state.error}" if state.error else ""
    logs = (
        f"kubectl logs -n {api.namespace or 'kubeflow'} -l pipeline/runid={state.run_id} -c main --tail 20"
    )
    click.echo(f"mnist: run {state.run_id} {state.state.lower()}{where}{why}; {logs}", err=True)
    return REJECTED


def node_line(name: str, state: str, seconds: float | None) -> str:
    """A node's name, state and seconds in columns."""
    return f"{name:<20}  {state.lower():<10}" + ("" if seconds is None else f"{seconds:8.0f} s")
