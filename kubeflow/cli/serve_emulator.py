"""`mnist kubeflow serve-emulator`: the API of Kubeflow Pipelines on this machine."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

import click

from kubeflow.cli.emulate import STORE, UPLOADS, put
from pipeline import product
from pipeline.errors import UserError
from pipeline.runtime import environment


@click.command("serve-emulator")
@STORE
@UPLOADS
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8888, show_default=True, help="0: any free one."
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Tasks at a time.")
def serve_emulator(store: Path, uploads: tuple[str, ...], port: int, workers: int) -> None:
    """Speak the API of Kubeflow Pipelines and execute what is submitted, on this machine, until Ctrl-C.

    For trying submit, schedule, status and kfp's own client without a cluster.
    """
    with environment.heavy_imports():
        from kubeflow.emulator import run as emulator
        from kubeflow.emulator import server
    options = emulator.Options(store.absolute(), workers=workers)
    put(options.objects(), uploads)
    with ExitStack() as stack:
        try:
            url = stack.enter_context(server.serving(options, port=port))
        except OSError as error:
            raise UserError(f"port {port}: {error.strerror}; give a free --port, 0 finds one") from None
        name = product.NAME
        click.echo(f"{url} is the --host of {name} submit, schedule and kubeflow status; Ctrl-C ends it")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            click.echo("ended")
