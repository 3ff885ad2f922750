"""`mnist submit`: a run of a compiled pipeline on Kubeflow Pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kubeflow import submit as kubeflow_submit
from kubeflow.cli.options import ACCESS, FILE, RUN, connect, package_of, run_options, with_options
from kubeflow.cli.watch import wait_for


@click.command()
@click.argument("package", metavar="FILE", type=FILE)
@with_options(ACCESS)
@click.option("--run-name", help="Name of the run. [default: the pipeline's name and the time]")
@with_options(RUN)
@click.option("--wait", is_flag=True, help="Follow the run; exit 1 when it fails.")
@click.option(
    "--poll", type=click.FloatRange(min=0.05), default=5.0, show_default=True, help="Seconds between looks."
)
@click.option(
    "--cool-down",
    metavar="INTERVAL",
    help="Start none where the newest run of the experiment is younger, e.g. 12h or 7d.",
)
def submit(
    package: Path,
    run_name: str | None,
    wait: bool,
    poll: float,
    cool_down: str | None,
    **options: Any,
) -> None:
    """Start a run of a compiled pipeline (`compile`).

    Exit code: 0 submitted (with --wait: succeeded) or still cooling down, 1 the run failed or the server
    refused, 2 bad input, 130 interrupted (the run goes on).
    """
    interval_s = 0 if cool_down is None else kubeflow_submit.seconds(cool_down)
    with package_of(package, options) as compiled:
        parameters = compiled.file.arguments(options["params"])
        api, how = connect(options), run_options(run_name, options)
        experiment = compiled.experiment(how)
        if interval_s and (made := kubeflow_submit.run_within(api, experiment, interval_s)):
            click.echo(f"no run: {experiment} has one of {made:%Y-%m-%d %H:%M %Z}, not {cool_down} ago yet")
            return
        run_id = kubeflow_submit.submit(api, compiled, how, parameters)
    click.echo(f"run {run_id}\n{api.run_page(run_id)}")
    if wait:
        wait_for(api, run_id, poll)
