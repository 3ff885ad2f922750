"""`mnist kubeflow status`: how a run on a cluster stands."""

from __future__ import annotations

from typing import Any

import click

from kubeflow import submit as kubeflow_submit
from kubeflow.cli.options import ACCESS, connect, with_options
from kubeflow.cli.watch import node_line, verdict, why_no_pod


@click.command()
@click.argument("run_id", metavar="RUN")
@with_options(ACCESS)
def status(run_id: str, **options: Any) -> None:
    """Show the nodes of a run.

    Exit code: 0 succeeded or still running, 1 the run failed or the server refused.
    """
    api = connect(options)
    state = kubeflow_submit.status(api, run_id)
    click.echo(state.name)
    for node in state.nodes:
        click.echo(node_line(node.name, node.state, node.seconds))
    if state.without_pod:
        click.echo(why_no_pod(state.without_pod, run_id, api))
    if state.state in kubeflow_submit.FINAL:
        verdict(state, api)
    else:
        click.echo(f"run {run_id}: {state.state.lower()}")
