"""`mnist rollback`: an earlier pushed version becomes the newest again."""

from __future__ import annotations

import click

from pipeline.cli.options import config_of, of_past_runs
from pipeline.history.rollback import roll_back


@click.command()
@click.argument("version", type=click.IntRange(0), required=False)
@of_past_runs
def rollback(version: int | None, root: str | None, settings: tuple[str, ...]) -> None:
    """Make an earlier pushed version the newest again; without VERSION, the one before the newest.

    The version is copied to a new, higher number, which servers take up by themselves. ML Metadata
    records it: `runs` shows it.

    Exit code: 0 done, 2 there is no such version, or a run is in progress.
    """
    done = roll_back(config_of(root, settings), version)
    click.echo(
        f"version {done.version} is a copy of {done.copy_of}, and newer than {done.newest_before}\n"
        f"model  {done.folder}\n"
        f"run    {done.run_id}"
    )
