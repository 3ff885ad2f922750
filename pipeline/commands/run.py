"""`mnist run`: the whole pipeline on this machine. Everything heavy is imported when it is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.data import fetch_with_bar
from pipeline.commands.errors import INTERRUPTED, REJECTED, fail, one_line_errors

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig


@click.command()
@click.option("--recipe", help="Hyper-parameters by name: fast, accurate or tutorial. [default: fast]")
@click.option("--dataset", help="A data set known by name, fetched if need be. [default: mnist]")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="A folder of four IDX files of your own (.gz or not), instead of --dataset.",
)
@click.option("--root", help="Everything the run writes lands below this folder. [default: var]")
@click.option("--no-cache", is_flag=True, help="Run every node, even where nothing changed.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. gates.accuracy=0.99."
)
@click.option("--beam-arg", "beam_args", multiple=True, metavar="ARG", help="A flag for Beam; repeatable.")
def run(
    recipe: str | None,
    dataset: str | None,
    data_dir: Path | None,
    root: str | None,
    no_cache: bool,
    settings: tuple[str, ...],
    beam_args: tuple[str, ...],
) -> None:
    """Run the whole pipeline on this machine, up to a pushed model.

    Exit code: 0 pushed, 1 a node failed or the model was refused, 2 bad input, 130 interrupted.
    """
    with one_line_errors():
        config = run_config(recipe, dataset, root, no_cache, settings, beam_args)
        if data_dir is None:
            data_dir = fetch_with_bar(config.data.dataset, config.root / "data")
        config = with_data_facts(config, data_dir)
        sys.exit(run_and_report(config))


def run_config(
    recipe: str | None,
    dataset: str | None,
    root: str | None,
    no_cache: bool,
    settings: tuple[str, ...],
    beam_args: tuple[str, ...],
) -> PipelineConfig:
    """The config that the options of `mnist run` describe."""
    from pipeline import config as config_module
    from trainer import recipes

    named = {"trainer.recipe": recipe, "data.dataset": dataset, "root": root}
    config = config_module.with_settings(
        config_module.PipelineConfig(),
        [f"{key}={value}" for key, value in named.items() if value is not None]
        + (["cache=false"] if no_cache else [])
        + list(settings),
    )
    try:
        recipes.resolve(config.trainer.recipe, **config.trainer.overrides())
    except ValueError as error:
        raise config_module.ConfigError(str(error)) from None
    return config.replace("beam", args=(*config.beam.args, *beam_args))


def with_data_facts(config: PipelineConfig, folder: Path) -> PipelineConfig:
    """Read the whole data set once, refuse a bad one, and put what it is into the config."""
    from components.idx_example_gen import idx
    from pipeline.code import code_hash

    facts = idx.inspect(folder.absolute(), config.data.num_classes or None)
    idx.split_sizes(folder, facts)  # refuses too few examples
    return config.replace(
        "data",
        uri=str(folder.absolute()),
        fingerprint=facts.fingerprint,
        height=facts.height,
        width=facts.width,
        num_classes=facts.num_classes,
    ).replace("trainer", code=code_hash(config.trainer))


def run_and_report(config: PipelineConfig) -> int:
    """Run the pipeline with a live view and a summary; returns the exit code."""
    from pipeline import environment, interruption, logs
    from pipeline.console import RunView
    from pipeline.runs import new_run_id

    run_id = new_run_id()
    log = config.logs_dir / f"{run_id}.log"
    try:
        with (
            interruption.insistent(),
            environment.settled(config.scratch_dir(run_id)),
            logs.redirected(log) as terminal,
        ):
            view = RunView(terminal)
            with view.live():
                view.note("loading TensorFlow and TFX")
                with environment.heavy_imports():
                    from pipeline import session

                outcome = session.run(config, view, run_id)
            if outcome.error is None:
                return session.show(view.console, outcome, log)
        fail(f"{outcome.error}; the log is {log}", REJECTED)
    except KeyboardInterrupt:
        click.echo("interrupted; the next run goes on from the last finished node")
        # If nothing ran yet, the session was not even imported.
        if "pipeline.session" in sys.modules:
            sys.modules["pipeline.session"].mend_and_exit(config)
        return INTERRUPTED
