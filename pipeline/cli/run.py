"""`mnist run`: the whole pipeline on this machine."""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
from rich.console import Console

from pipeline import product, resolve
from pipeline.cli.console import RunView
from pipeline.cli.data import fetch_with_bar
from pipeline.cli.summary import show_outcome
from pipeline.config import ConfigError, PipelineConfig, with_settings
from pipeline.errors import INTERRUPTED, RefusedError, UserError
from pipeline.history.run_id import new_run_id
from pipeline.local import interruption, unchanged
from pipeline.local.outcome import Outcome
from pipeline.nodes import NodeId
from pipeline.runtime import environment, logs
from trainer.recipes import RECIPES

# What `--rerun` takes: an importer's result is what it points at, and the others are no nodes of a run.
EXECUTED = frozenset(NodeId) - {
    NodeId.IMAGES,
    NodeId.PREVIOUS_DATA,
    NodeId.WARM_START,
    NodeId.TUNER,
    NodeId.ROLLBACK,
}


class Result(Protocol):
    """What some work came to."""

    @property
    def error(self) -> str | None: ...


R = TypeVar("R", bound=Result)


@click.command()
@click.option("--recipe", help=f"Hyper-parameters by name: {', '.join(RECIPES)}. [default: fast]")
@click.option(
    "--recipe-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Hyper-parameters from a TOML file, such as `{product.NAME} tune` writes.",
)
@click.option(
    "--dataset", help=f"A data set known by name, fetched if need be. [default: {product.DATASET}]"
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="A folder of images of your own (docs/your-own-images.md); --dataset may give it a name.",
)
@click.option("--root", help="Everything the run writes lands below this folder. [default: var]")
@click.option("--no-cache", is_flag=True, help="Run every node, even where nothing changed.")
@click.option(
    "--rerun",
    multiple=True,
    metavar="NODE[,NODE]",
    callback=lambda _context, _option, given: nodes_to_rerun(given),
    help="Execute these nodes even where nothing changed, and those after them.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. gates.accuracy=0.99."
)
@click.option("--beam-arg", "beam_args", multiple=True, metavar="ARG", help="A flag for Beam; repeatable.")
def run(
    recipe: str | None,
    recipe_file: Path | None,
    dataset: str | None,
    data_dir: Path | None,
    root: str | None,
    no_cache: bool,
    rerun: frozenset[str],
    settings: tuple[str, ...],
    beam_args: tuple[str, ...],
) -> None:
    """Run the whole pipeline on this machine, up to a pushed model.

    Exit code: 0 pushed, 1 a node failed or the model was refused, 2 bad input, 130 interrupted.
    """
    dataset = dataset_name(dataset, data_dir)
    config = run_config(recipe, recipe_file, dataset, root, no_cache, settings, beam_args)
    sys.exit(run_and_report(complete(config, data_dir), rerun))


def dataset_name(dataset: str | None, data_dir: Path | None) -> str | None:
    """What the data are called; one's own, given no name, are what their folder held before."""
    return str(data_dir.absolute()) if data_dir and not dataset else dataset


def run_config(
    recipe: str | None = None,
    recipe_file: Path | None = None,
    dataset: str | None = None,
    root: str | None = None,
    no_cache: bool = False,
    settings: tuple[str, ...] = (),
    beam_args: tuple[str, ...] = (),
) -> PipelineConfig:
    """The config that the options of `mnist run` describe; later ones win over the recipe file."""
    config = PipelineConfig()
    if recipe_file is not None:
        config = config.replace("trainer", **read_recipe(recipe_file))
    named = {"trainer.recipe": recipe, "data.dataset": dataset, "root": root}
    config = with_settings(
        config,
        [f"{key}={value}" for key, value in named.items() if value is not None]
        + (["cache=false"] if no_cache else [])
        + list(settings),
    )
    resolve.check_recipe(config)  # before anything is fetched
    return config.replace("beam", args=(*config.beam.args, *beam_args))


def read_recipe(path: Path) -> dict[str, Any]:
    """The `trainer` settings in a recipe file."""
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def complete(config: PipelineConfig, folder: Path | None) -> PipelineConfig:
    """Find out the rest, with the data of a folder, or of the config's data set, fetched if need be."""
    return resolve.for_this_machine(
        config, folder or fetch_with_bar(config.data.dataset, config.root / "data")
    )


def nodes_to_rerun(given: Iterable[str]) -> frozenset[str]:
    """The nodes that comma-separated lists name.

    Raises:
        UserError: for one that there is not.
    """
    names = frozenset(filter(None, (name.strip() for names in given for name in names.split(","))))
    for name in sorted(names - EXECUTED):
        near = difflib.get_close_matches(name, EXECUTED, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(EXECUTED))}"
        raise UserError(f"--rerun: there is no node {name!r}: {hint}")
    return names


def run_and_report(config: PipelineConfig, rerun: Collection[str] = ()) -> int:
    """Run the pipeline with a live view and a summary; returns the exit code."""
    imported_here = "tensorflow" not in sys.modules

    def work(view: RunView, run_id: str) -> Outcome:
        from pipeline.local import session  # imported by with_live_view, with a note on the terminal

        return session.run(config, view, run_id, rerun, may_fork=imported_here)

    def at_once(view: RunView, run_id: str) -> Outcome | None:
        return None if rerun else unchanged.run(config, view, run_id)

    return with_live_view(config, work, show_outcome, at_once)


def with_live_view(
    config: PipelineConfig,
    work: Callable[[RunView, str], R],
    show: Callable[[Console, R, Path], int],
    at_once: Callable[[RunView, str], R | None] = lambda _view, _run_id: None,
    needed: Collection[str] = (),
) -> int:
    """Do some work of `pipeline.local.session` with a live view, the noise in a log file, and recovery.

    Args:
        config: where the run takes place.
        work: gets the view and the run's id.
        show: gets the console, what `work` returned and the log, and returns the exit code.
        at_once: does the work without TensorFlow and TFX where it can, and returns None elsewhere.
        needed: what it needs of the modules that heavy_imports leaves out.

    Returns:
        The exit code.

    Raises:
        RefusedError: with the error of the work.
    """
    run_id = new_run_id()
    log = config.logs_dir / f"{run_id}.log"
    began = False
    try:
        with (
            interruption.repeated_interrupts(),
            environment.scratch_environment(config.scratch_dir(run_id)),
            logs.redirected(log) as terminal,
        ):
            view = RunView(terminal)
            with view.live():
                result = at_once(view, run_id)
                if result is None:
                    view.note("loading TensorFlow and TFX")
                    # Seconds; before it, everything that was given has been checked.
                    with environment.heavy_imports(needed):
                        from pipeline.local import session
                    began = True
                    result = work(view, run_id)
            if result.error is None:
                return show(view.console, result, log)
        raise RefusedError(f"{result.error}; the log is {log}")
    except KeyboardInterrupt:
        click.echo("interrupted; the next run goes on from the last finished node")
        if began:
            session.clean_up_and_exit(config)
        return INTERRUPTED
