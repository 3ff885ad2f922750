"""`mnist runs`: past runs, from ML Metadata."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from pipeline.cli.options import config_of, of_past_runs
from pipeline.history.records import History, Run, flat_metrics

_SHORT = 12  # characters of a hash
_WIDEST = 60  # characters of a value in a table
_VERDICTS = {"pushed": "green", "refused": "red", "not servable": "red"}


@click.group(invoke_without_command=True)
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, newest first."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON array instead of a table.")
@of_past_runs
@click.pass_context
def runs(
    context: click.Context, limit: int, as_json: bool, root: str | None, settings: tuple[str, ...]
) -> None:
    """List past runs; `show` looks at one, `diff` at two.

    Exit code: 0 listed, 2 there is none.
    """
    if context.invoked_subcommand is not None:
        return
    found = _history(root, settings).runs(limit)
    if as_json:
        click.echo(json.dumps([_line(run) for run in found], indent=2))
        return
    table = _table("run", "began", "recipe", "data", "accuracy", "verdict", "version", "seconds")
    for run in found:
        line = _line(run)
        style = _VERDICTS.get(run.verdict, "yellow")
        table.add_row(
            run.id,
            f"{run.began:%Y-%m-%d %H:%M}",
            line["recipe"],
            line["data"][:_SHORT],
            "" if line["accuracy"] is None else f"{line['accuracy']:.4f}",
            f"[{style}]{line['verdict']}[/]",
            line["pushed_version"],
            f"{line['seconds']:.1f}",
        )
    _print(table)


@runs.command()
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@of_past_runs
def show(run: str | None, as_json: bool, root: str | None, settings: tuple[str, ...]) -> None:
    """The nodes of a run: what each did, and what it wrote.

    RUN is the id of a run or how it begins; without one, it is the newest run.
    """
    found = _history(root, settings).find(run)
    nodes = [
        {
            "node": node.id,
            "state": node.state,
            "seconds": node.seconds,
            "execution": node.execution_id,
            "artifacts": [{"key": a.key, "id": a.id, "type": a.type, "uri": a.uri} for a in node.outputs],
        }
        for node in found.nodes
    ]
    if as_json:
        click.echo(json.dumps(_line(found) | {"nodes": nodes, "metrics": found.metrics}, indent=2))
        return
    click.echo(f"run {found.id}: {found.verdict}\n")
    table = _table("node", "state", "seconds", "execution", "artifacts")
    for node in nodes:
        artifacts: Any = node["artifacts"]
        table.add_row(
            str(node["node"]),
            str(node["state"]),
            f"{node['seconds']:.1f}",
            str(node["execution"]),
            "\n".join(f"#{a['id']} {a['key']}  {a['uri']}" for a in artifacts),
        )
    _print(table)


@runs.command()
@click.argument("first")
@click.argument("second")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@of_past_runs
def diff(first: str, second: str, as_json: bool, root: str | None, settings: tuple[str, ...]) -> None:
    """Two runs side by side: the settings that differ, and the metrics."""
    history = _history(root, settings)
    a, b = history.find(first), history.find(second)
    settings_of = {
        key: value for key, value in _both(a.settings, b.settings).items() if value[0] != value[1]
    }
    metrics = _both(flat_metrics(a), flat_metrics(b))
    if as_json:
        click.echo(
            json.dumps({"runs": [a.id, b.id], "settings": settings_of, "metrics": metrics}, indent=2)
        )
        return
    for title, rows in (("settings that differ", settings_of), ("metrics", metrics)):
        table = _table(title, a.id, b.id, "change")
        for key, (before, after) in rows.items():
            table.add_row(key, _text(before), _text(after), _change(before, after))
        _print(table)
        click.echo("" if rows else "none\n")


def _history(root: str | None, settings: tuple[str, ...]) -> History:
    return History(config_of(root, settings))


def _line(run: Run) -> dict[str, Any]:
    """A run as `--json` gives it; seconds are those of its nodes, `data` is the fingerprint."""
    return {
        "id": run.id,
        "began": run.began.isoformat(timespec="seconds"),
        "recipe": run.recipe,
        "data": run.fingerprint,
        "accuracy": run.metrics.get("accuracy"),
        "verdict": run.verdict,
        "pushed_version": run.pushed_version,
        "seconds": run.seconds,
    }


def _both(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {key: (a.get(key), b.get(key)) for key in {**a, **b}}


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(str(value).split())
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"


def _change(before: Any, after: Any) -> str:
    numbers = (int, float)
    if isinstance(before, numbers) and isinstance(after, numbers) and not isinstance(before, bool):
        return f"{after - before:+.6g}" if after != before else ""
    return ""


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in ("accuracy", "seconds", "execution", "change") else "left",
            overflow="fold",
        )
    return table


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # in a file or a pipe, one run is one line
    console.print(table)
