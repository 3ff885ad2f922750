"""`mnist kubeflow`: runs of a compiled pipeline, on a cluster and on this machine."""

from __future__ import annotations

import click

from kubeflow.cli.emulate import emulate
from kubeflow.cli.serve_emulator import serve_emulator
from kubeflow.cli.status import status


@click.group()
def kubeflow() -> None:
    """Runs of a compiled pipeline."""


kubeflow.add_command(status)
kubeflow.add_command(emulate)
kubeflow.add_command(serve_emulator)
