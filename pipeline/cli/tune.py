"""`mnist tune`: look for better hyper-parameters of a recipe."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from components.shared import files
from pipeline import product
from pipeline.cli.console import RunView
from pipeline.cli.run import complete, dataset_name, run_config, with_live_view
from pipeline.errors import UserError
from pipeline.local.outcome import Tuned


@click.command()
@click.option("--recipe", help="The recipe to start from. [default: fast]")
@click.option(
    "--trials", type=click.IntRange(min=1), default=10, show_default=True, help="How many values to try."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("recipe.toml"),
    show_default=True,
    help=f"Where to write the best recipe; `{product.NAME} run --recipe-file` reads it.",
)
@click.option(
    "--dataset", help=f"A data set known by name, fetched if need be. [default: {product.DATASET}]"
)
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="A folder of images of your own, instead."
)
@click.option("--root", help="Everything the run writes lands below this folder. [default: var]")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. trainer.epochs=1."
)
def tune(
    recipe: str | None,
    trials: int,
    output: Path,
    dataset: str | None,
    data_dir: Path | None,
    root: str | None,
    settings: tuple[str, ...],
) -> None:
    """Search for a better recipe, by accuracy on the validation split, with TFX's Tuner."""
    if not output.absolute().parent.is_dir():
        raise UserError(f"{output}: there is no folder to write it to")
    following = next_command(output, dataset, data_dir, root, settings)
    dataset = dataset_name(dataset, data_dir)
    config = run_config(recipe=recipe, dataset=dataset, root=root, settings=settings)
    if config.trainer.warm_start_from:
        raise UserError("trainer.warm_start_from: each trial begins with new weights: leave it out")
    if config.trainer.workers > 1:
        raise UserError("trainer.workers: a trial is trained by one process: leave it out")
    config = complete(config, data_dir)

    def work(view: RunView, run_id: str) -> Tuned:
        from pipeline.local import session  # imported by with_live_view, with a note on the terminal

        return session.tune(config, trials, view, run_id)

    def show(console: Console, tuned: Tuned, log: Path) -> int:  # noqa: ARG001
        found = score(tuned)
        write_recipe(output, tuned.recipe, found)
        console.print(
            f"\nbest           {found}\nrecipe         {output}\nnext           {following}",
            markup=False,
            soft_wrap=True,
        )
        return 0

    # KerasTuner guesses with it where to look next.
    sys.exit(with_live_view(config, work, show, needed=("sklearn",)))


def score(tuned: Tuned) -> str:
    """What the best trial came to; a trial trains the new layers alone where a run has a second phase."""
    layers = tuned.recipe.get("fine_tune")
    after = f", of the new layers alone: a run goes on with trainer.fine_tune={layers}" if layers else ""
    return f"{tuned.accuracy:.4f} on validation, of {tuned.trials} trials{after}"


def next_command(
    output: Path, dataset: str | None, data_dir: Path | None, root: str | None, settings: Sequence[str]
) -> str:
    """The command that trains with the best recipe, on the same data in the same place."""
    given: list[tuple[str, str | Path | None]] = [
        ("--recipe-file", output),
        ("--dataset", dataset),
        ("--data-dir", data_dir),
        ("--root", root),
    ]
    # Those of the trainer are in the recipe, and would win over it.
    given += [("--set", setting) for setting in settings if not setting.startswith("trainer.")]
    options = [str(word) for name, value in given if value is not None for word in (name, value)]
    return shlex.join([product.NAME, "run", *options])


def write_recipe(path: Path, recipe: Mapping[str, Any], found: str) -> None:
    """Write settings of `trainer` as TOML, whole or not at all."""
    # What JSON says of numbers, booleans and plain strings is TOML too.
    lines = [f"{key} = {json.dumps(value)}" for key, value in recipe.items()]
    files.write_text(path, "\n".join([f"# Found by {product.NAME} tune: {found}.", *lines, ""]))
