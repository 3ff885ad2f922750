"""`mnist batch`: a pushed model's answers for many pictures, as JSON lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline import product
from pipeline.bulk import chunks
from pipeline.cli.options import config_of
from pipeline.config import PipelineConfig
from pipeline.errors import INTERRUPTED, REJECTED, RefusedError
from pipeline.history.run_id import new_run_id
from pipeline.runtime import environment, logs


@click.command()
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGES_OR_IDX…"
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file of JSON lines; an earlier one is replaced when the new one is complete.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of a SavedModel, or of its versions. [default: the newest that was pushed]",
)
@click.option("--probabilities", is_flag=True, help="Give those of all classes.")
@click.option("--root", help="The --root of the run that pushed the model. [default: var]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of that run.")
@click.option("--beam-arg", "beam_args", multiple=True, metavar="ARG", help="A flag for Beam; repeatable.")
def batch(
    images: tuple[Path, ...],
    output: Path,
    model: Path | None,
    probabilities: bool,
    root: str | None,
    settings: tuple[str, ...],
    beam_args: tuple[str, ...],
) -> None:
    """Ask the pushed model about many pictures, one JSON line each, in their order.

    IMAGES_OR_IDX are picture files of any size, folders of them, and IDX image files (.gz or not).

    Exit code: 0 all answered, 1 some pictures could not be read (their lines have an `error`), 2 bad input.
    """
    config = config_of(root, settings)
    sys.exit(_infer(config, images, output, model, probabilities, beam_args))


def _infer(
    config: PipelineConfig,
    images: Sequence[Path],
    output: Path,
    model: Path | None,
    probabilities: bool,
    beam_args: Sequence[str],
) -> int:
    run_id = new_run_id()
    log = config.logs_dir / f"batch-{run_id}.log"
    try:
        with (
            environment.scratch_environment(config.scratch_dir(run_id)),
            logs.redirected(log) as terminal,
        ):
            with environment.heavy_imports():  # seconds: not for --help
                from components.shared import classifier
                from pipeline.bulk import inference

            folder = classifier.find(model or config.serving_dir)
            tasks = chunks.plan(images, classifier.image_shape(folder))
            total = sum(sum(task.counts) for task in tasks)
            began = time.monotonic()
            with _bar(terminal, total) as show:
                flags = (*config.beam.flags("Batch"), *beam_args)
                unread = inference.infer(tasks, folder, output, flags, probabilities, show)
            seconds = time.monotonic() - began
    except RefusedError as error:
        raise RefusedError(f"{error}; the log is {log}") from None
    except KeyboardInterrupt:
        click.echo("interrupted; nothing was written", err=True)
        return INTERRUPTED
    click.echo(f"{total:,} images in {seconds:.1f} s ({total / seconds:,.0f} a second), by {folder}")
    click.echo(f"answers in {output}")
    if unread:
        click.echo(
            f"{product.NAME}: {unread} pictures could not be read: see `error` in {output}", err=True
        )
    return REJECTED if unread else 0


@contextmanager
def _bar(terminal: TextIO, total: int) -> Iterator[Callable[[int], None] | None]:
    """A progress bar on a terminal, nothing elsewhere."""
    console = Console(file=terminal)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("images", total=total)
        yield lambda done: bar.update(task, completed=done)
