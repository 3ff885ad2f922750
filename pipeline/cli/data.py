"""`mnist data`: known data sets, those that are made here, and what is in a folder."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from pipeline import enough_data, product, resolve
from pipeline.cli.console import download_bar
from pipeline.config import PipelineConfig, with_settings
from pipeline.datasets import description, made
from pipeline.datasets.fetch import fetch_known

dest_option = click.option(
    "--dest",
    type=click.Path(path_type=Path),
    default=Path("var/data"),
    show_default=True,
    help="Folder that holds a folder for each data set.",
)


@click.group()
def data() -> None:
    """Data sets: fetch, make and check."""


@data.command()
@click.option(
    "--dataset", default=product.DATASET, show_default=True, help="mnist, fashion-mnist or kmnist."
)
@dest_option
def fetch(dataset: str, dest: Path) -> None:
    """Fetch a data set and verify it; does nothing when it is there already."""
    folder = fetch_with_bar(dataset, dest)
    click.echo(f"{dataset}: verified, in {folder}")


@data.command()
@click.argument("name", type=click.Choice(list(made.MADE)))
@dest_option
def make(name: str, dest: Path) -> None:
    """Make a data set from what is installed; does nothing when it is there already.

    letters: A to J from fonts, pictures of many sizes. mnist-m: MNIST's digits on photos, in colour.
    digits-8: digits of 8 x 8 pixels. emnist-like: MNIST as EMNIST's files have it.
    """
    folder, new = made.make(name, dest, lambda: fetch_with_bar("mnist", dest))
    click.echo(f"{name}: {'made' if new else 'there already'}, in {folder}")
    click.echo(description.command(folder, made.MADE[name].settings))


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting that says how the data are read, such as data.size=64x64; repeatable.",
)
def check(folder: Path, settings: tuple[str, ...]) -> None:
    """Say what is in a folder of images, as a run would read it, and how to train on it.

    Exit code: 0 it can be trained on, 2 it cannot, and why.
    """
    config = with_settings(PipelineConfig(), settings)
    found = resolve.inspect(config.data, folder)
    console = Console(highlight=False, soft_wrap=True)
    for line in description.lines(found, folder):
        console.print(line, markup=False)
    lack = enough_data.find(config, found, str(folder))
    if lack:
        console.print(f"note   {lack.text}", markup=False)
    implied = resolve.facts(config.data, found)
    for line in description.advice(config, implied["shape"]):
        console.print(line, markup=False)
    console.print(f"reads  {implied['shape']}", markup=False)
    console.print(description.command(folder, [*settings, *(lack.settings if lack else ())]), markup=False)


def fetch_with_bar(dataset: str, dest: Path) -> Path:
    """Fetch a known data set below `dest`, with a progress bar on standard error."""
    console = Console(stderr=True, highlight=False)
    with download_bar(console) as show:
        return fetch_known(dataset, dest, progress=show)
