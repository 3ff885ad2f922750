"""`mnist kubeflow status`: how a run on a cluster stands."""

from __future__ import annotations

import sys
from typing import Any

import click

from pipeline.commands.submit import ACCESS, connect, node_line, submit_errors, verdict, with_options


@click.command()
@click.argument("run_id", metavar="RUN")
@with_options(ACCESS)
def status(run_id: str, **options: Any) -> None:
    """Show the nodes of a run.

    Exit code: 0 succeeded or still running, 1 the run failed or the server refused.
    """
    with submit_errors():
        from kubeflow import submit as kubeflow_submit

        api = connect(options)
        state = kubeflow_submit.status(api, run_id)
        click.echo(state.name)
        for node in state.nodes:
            click.echo(node_line(node.name, node.state, node.seconds))
        if state.state in kubeflow_submit.FINAL:
            sys.exit(verdict(state, api))
        click.echo(f"run {run_id}: {state.state.lower()}")
