"""`mnist data`: known data sets."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from pipeline import product
from pipeline.cli.console import download_bar
from pipeline.datasets import catalogue


@click.group()
def data() -> None:
    """Data sets: fetch and check."""


@data.command()
@click.option(
    "--dataset", default=product.DATASET, show_default=True, help="mnist, fashion-mnist or kmnist."
)
@click.option(
    "--dest",
    type=click.Path(path_type=Path),
    default=Path("var/data"),
    show_default=True,
    help="Folder that holds a folder for each data set.",
)
def fetch(dataset: str, dest: Path) -> None:
    """Fetch a data set and verify it; does nothing when it is there already."""
    folder = fetch_with_bar(dataset, dest)
    click.echo(f"{dataset}: verified, in {folder}")


def fetch_with_bar(dataset: str, dest: Path) -> Path:
    """Fetch a known data set below `dest`, with a progress bar on standard error."""
    console = Console(stderr=True, highlight=False)
    with download_bar(console) as show:
        return catalogue.fetch(dataset, dest, progress=show)
