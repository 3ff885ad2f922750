"""`mnist kubeflow emulate`: a compiled file run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kubeflow import spec
from kubeflow.cli.watch import Printed
from kubeflow.settings import bucket
from pipeline.errors import RefusedError, UserError
from pipeline.runtime import environment

if TYPE_CHECKING:
    from kubeflow.emulator.object_store import ObjectStore


EXAMPLE = "minio://mlpipeline/data/mnist=var/data/mnist"
STORE = click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/kubeflow"),
    show_default=True,
    help="Folder that stands for object store, metadata and volumes.",
)
UPLOADS = click.option(
    "--put",
    "uploads",
    multiple=True,
    metavar="URI=PATH",
    help="First copy a file or folder into the object store; repeatable.",
)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--param", "given", multiple=True, metavar="NAME=VALUE", help="A parameter; repeatable.")
@STORE
@UPLOADS
@click.option("--pipeline-root", default="", help="URI of the artifacts. [default: the file's own]")
@click.option("--no-cache", is_flag=True, help="Run every task, even where nothing changed.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Tasks at a time.")
def emulate(
    file: Path,
    given: tuple[str, ...],
    store: Path,
    uploads: tuple[str, ...],
    pipeline_root: str,
    no_cache: bool,
    workers: int,
) -> None:
    """Run a compiled file here, step by step, as the backend of Kubeflow Pipelines would.

    Each step is a process that runs its container's command. Exit code: 0 every task succeeded, 1 a task
    failed, 2 bad input.
    """
    with environment.heavy_imports():
        from kubeflow.emulator import run as emulator
    compiled = spec.read_file(file)
    parameters = emulator.parameter_values(compiled, compiled.arguments(given))
    options = emulator.Options(
        store.absolute(), pipeline_root or compiled.pipeline_root, not no_cache, workers=workers
    )
    put(options.objects(), uploads)
    run = emulator.run(compiled, parameters, options, Printed())
    failed = {name: task.message for name, task in run.tasks.items() if task.message}
    if failed:
        told = "; ".join(f"{name}: {message}" for name, message in failed.items())
        raise RefusedError(f"{told}\nthe logs of the run: {run.logs}/NODE")
    click.echo(f"run {run.run_id}: every task succeeded; artifacts, volumes and metadata are in {store}")


def put(objects: ObjectStore, uploads: tuple[str, ...]) -> None:
    """Copy what `URI=PATH` options name into the object store.

    Raises:
        UserError: for another form, or a path where nothing is; nothing is copied then.
    """
    found: list[tuple[Path, str]] = []
    for upload in uploads:
        uri, equals, path = upload.partition("=")
        if not equals:
            raise UserError(f"--put {upload}: write URI=PATH, like {EXAMPLE}")
        if not Path(path).exists():
            raise UserError(f"--put {upload}: there is no file or folder {path!r}")
        if bucket(uri) is None:
            raise UserError(
                f"--put {upload}: {uri!r} is in no object store; write URI=PATH, like {EXAMPLE}"
            )
        found.append((Path(path), uri))
    for source, uri in found:
        objects.put(source, uri)
