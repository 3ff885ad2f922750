"""A run as the terminal shows it."""

from __future__ import annotations

import shlex
import sys

import click

from kubeflow import submit as kubeflow_submit
from kubeflow.api import BACKEND_NAMESPACE, Api
from kubeflow.submit import SKIPPED, SUCCEEDED, RunState
from pipeline import product
from pipeline.errors import INTERRUPTED, RefusedError


class Printed:
    """Prints a line about each node of an emulated run when it has ended."""

    def planned(self, nodes: list[str]) -> None:
        """Say nothing yet."""

    def started(self, node: str) -> None:
        """Say nothing yet."""

    def finished(self, node: str, state: str, seconds: float) -> None:
        """Print the node's line."""
        click.echo(node_line(node, state, seconds))


def wait_for(api: Api, run_id: str, poll_s: float) -> None:
    """Show the nodes as they go; see `verdict` for the end."""
    shown: dict[str, str] = {}
    explained: set[str] = set()
    state = None
    try:
        for state in kubeflow_submit.follow(api, run_id, poll_s):
            for node in state.nodes:
                if shown.get(node.name, kubeflow_submit.PENDING) != node.state:
                    shown[node.name] = node.state
                    click.echo(node_line(node.name, node.state, node.seconds))
            if without_pod := set(state.without_pod) - explained:
                explained |= without_pod
                click.echo(why_no_pod(sorted(without_pod), run_id, api))
    except KeyboardInterrupt:
        click.echo(f"no longer following; the run goes on: {status_command(run_id, api)}")
        sys.exit(INTERRUPTED)
    assert state is not None
    verdict(state, api)


def verdict(state: RunState, api: Api) -> None:
    """Say that a run has succeeded.

    Raises:
        RefusedError: where it has not, naming the nodes that failed.
    """
    if state.state in (SUCCEEDED, SKIPPED):
        click.echo(f"run {state.run_id}: {state.state.lower()}")
        return
    where = f" in {', '.join(state.failed)}" if state.failed else ""
    why = f": {state.error}" if state.error else ""
    raise RefusedError(
        f"run {state.run_id} {state.state.lower()}{where}{why}; what each step says: "
        f"{messages_command(state.run_id, api)}"
    )


def why_no_pod(nodes: list[str], run_id: str, api: Api) -> str:
    """What to do about nodes whose pods do not start."""
    return (
        f"{', '.join(nodes)}: no pod for a minute (no free GPU or memory, a missing secret or claim, or "
        f"no such image); what Kubernetes says: {messages_command(run_id, api)}"
    )


def status_command(run_id: str, api: Api) -> str:
    """The command that shows the run, on the same server; tokens are for its user to give again."""
    words = [product.NAME, "kubeflow", "status", run_id]
    if not api.in_cluster:
        words += ["--host", api.host]
    if api.namespace:
        words += ["--namespace", api.namespace]
    return shlex.join(words)


def messages_command(run_id: str, api: Api) -> str:
    """The command that shows the phase and the message of each step of a run."""
    each = r"{range .items[0].status.nodes.*}{.name} {.phase} {.message}{\"\\n\"}{end}"
    namespace = api.namespace or BACKEND_NAMESPACE
    return f"kubectl get workflow -n {namespace} -l pipeline/runid={run_id} -o jsonpath='{each}'"


def node_line(name: str, state: str, seconds: float | None) -> str:
    """A node's name, state and seconds in columns."""
    return f"{name:<20}  {state.lower():<19}" + ("" if seconds is None else f"{seconds:8.0f} s")
