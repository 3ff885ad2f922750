"""`mnist runs`: past runs, from ML Metadata."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.markup import escape

from pipeline.cli.options import config_of, of_past_runs
from pipeline.cli.tables import Column, print_table
from pipeline.history.records import History, Node, Run, flat_metrics

_SHORT = 12  # characters of a hash
_WIDEST = 60  # characters of a value in a table
_COLUMNS = (
    Column("run"),  # begins with the time
    Column("began", spare=4),
    Column("recipe"),
    Column("data", spare=3),
    Column("accuracy", right=True),
    Column("verdict"),
    Column("version", spare=2),
    Column("seconds", right=True, spare=1),
)
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
    print_table(_COLUMNS, [_row(run) for run in found])


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
    columns = [
        Column("node"),
        Column("state"),
        Column("seconds", right=True),
        Column("execution", right=True, spare=1),
        Column("artifacts", folds=True),
    ]
    print_table(columns, [_node_row(node) for node in found.nodes])


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
        columns = [
            Column(title, folds=True),
            Column(a.id, folds=True),
            Column(b.id, folds=True),
            Column("change", right=True, spare=1),
        ]
        print_table(
            columns,
            [
                [escape(key), escape(_text(before)), escape(_text(after)), _change(before, after)]
                for key, (before, after) in rows.items()
            ],
        )
        click.echo("" if rows else "none\n")


def _history(root: str | None, settings: tuple[str, ...]) -> History:
    return History(config_of(root, settings))


def _row(run: Run) -> list[str]:
    line = _line(run)
    style = _VERDICTS.get(run.verdict, "yellow")
    return [
        run.id,
        f"{run.began:%Y-%m-%d %H:%M}",
        line["recipe"],
        line["data"][:_SHORT],
        "" if line["accuracy"] is None else f"{line['accuracy']:.4f}",
        f"[{style}]{line['verdict']}[/]",
        line["pushed_version"],
        f"{line['seconds']:.1f}",
    ]


def _node_row(node: Node) -> list[str]:
    artifacts = "\n".join(f"#{a.id} {a.key}  {a.uri}" for a in node.outputs)
    return [node.id, node.state, f"{node.seconds:.1f}", str(node.execution_id), escape(artifacts)]


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
