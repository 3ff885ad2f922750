"""`mnist schedule`: a compiled pipeline that runs again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kubeflow import cron as cron_expressions
from kubeflow import submit as kubeflow_submit
from kubeflow.cli.options import ACCESS, FILE, RUN, connect, package_of, run_options, with_options
from pipeline.errors import UserError


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
    if (cron is None) == (every is None):
        raise UserError("give --cron or --every: when shall it run?")
    if cron is not None:
        cron_expressions.parse(cron)
    when = kubeflow_submit.Schedule(
        cron=cron,
        every_s=None if every is None else kubeflow_submit.seconds(every),
        catch_up=catch_up,
        max_concurrency=max_concurrency,
        start=kubeflow_submit.moment(start),
        end=kubeflow_submit.moment(end),
    )
    with package_of(package, options) as compiled:
        parameters = compiled.file.arguments(options["params"])
        api = connect(options)
        schedule_id = kubeflow_submit.schedule(api, compiled, run_options(name, options), parameters, when)
    click.echo(f"schedule {schedule_id}\n{api.host}/#/recurringrun/details/{schedule_id}")
