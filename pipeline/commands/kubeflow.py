"""`mnist kubeflow`: runs of a compiled pipeline, on a cluster and on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.cli.errors import REJECTED, fail, one_line_errors
from pipeline.commands.status import status


@click.group()
def kubeflow() -> None:
    """Runs of a compiled pipeline."""


kubeflow.add_command(status)


@kubeflow.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--param", "given", multiple=True, metavar="NAME=VALUE", help="A parameter; repeatable.")
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var/kubeflow"),
    show_default=True,
    help="Folder that stands for object store, metadata and volumes.",
)
@click.option(
    "--put",
    "uploads",
    multiple=True,
    metavar="URI=PATH",
    help="First copy a file or folder into the object store; repeatable.",
)
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
    with one_line_errors():
        from pipeline.cli.console import RunView
        from pipeline.config import ConfigError
        from pipeline.runtime import environment

        text = file.read_text()
        with environment.heavy_imports():
            from kubeflow import emulator
        pipeline, platform = emulator.load(text)
        parameters = emulator.parameter_values(pipeline, _pairs(given))
        options = emulator.Options(store.absolute(), pipeline_root, not no_cache, workers=workers)
        for uri, path in _pairs(uploads).items():
            if not Path(path).exists():
                raise ConfigError(f"{path}: there is no such file or folder")
            options.objects().put(Path(path), uri)
        view = RunView(sys.stdout)
        with view.live():
            run = emulator.run(pipeline, platform, parameters, options, view)
    failed = {name: task.message for name, task in run.tasks.items() if task.message}
    if failed:
        fail("; ".join(f"{name}: {message}" for name, message in failed.items()), REJECTED)
    click.echo(f"run {run.run_id}: every task succeeded; artifacts, volumes and metadata are in {store}")


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    from pipeline.config import ConfigError

    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text!r} is not of the form name=value")
        pairs[name] = value
    return pairs
