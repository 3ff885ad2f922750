"""`mnist report`: the page about a run."""

from __future__ import annotations

import click

from pipeline.cli.options import config_of, of_past_runs
from pipeline.history import records, report_page


@click.command()
@click.argument("run", required=False)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
@of_past_runs
def report(run: str | None, show: bool, root: str | None, settings: tuple[str, ...]) -> None:
    """Find the report of a run and print its path.

    RUN is the id of a run or how it begins; without one, it is the newest run.

    Exit code: 0 found, 2 there is none.
    """
    config = config_of(root, settings)
    page = report_page.write(config, records.History(config).find(run))
    click.echo(page)
    if show:
        click.launch(page.as_uri())
