"""Tables as wide as the terminal; in a file or a pipe, as wide as they are, so that a row is a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table

_LEAST_FOLDED = 16  # characters that a folded column gets, if there is a choice
_WIDER_THAN_ANY = 10_000


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its head.
        right: whether it is set flush right, as numbers are.
        folds: whether long texts go on in the next line of their row.
        spare: columns above 0 are left out where the terminal is too narrow, those with the highest first.
        style: of its texts, as rich has them.
    """

    name: str
    right: bool = False
    folds: bool = False
    spare: int = 0
    style: str = ""


def print_table(
    columns: Sequence[Column], rows: Iterable[Sequence[RenderableType]], console: Console | None = None
) -> None:
    """Print rows of cells, strings with rich's markup or its renderables; no cell is cut off."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDER_THAN_ANY
    rows = list(rows)
    widths = [_width(console, [column.name, *(row[i] for row in rows)]) for i, column in enumerate(columns)]
    kept = list(range(len(columns)))
    while sum(_needed(columns[i], widths[i]) + 1 for i in kept) - 1 > console.width:
        spare = max(kept, key=lambda i: columns[i].spare)
        if not columns[spare].spare:
            break
        kept.remove(spare)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for i in kept:
        column = columns[i]
        table.add_column(
            column.name,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=not column.folds,
            min_width=None if column.folds else widths[i],
            style=column.style,
        )
    for row in rows:
        table.add_row(*(row[i] for i in kept))
    if not console.is_terminal:
        console.width = max(1, Measurement.get(console, console.options, table).maximum)
    console.print(table)


def _width(console: Console, cells: Iterable[RenderableType]) -> int:
    options = console.options.update(width=_WIDER_THAN_ANY)
    return max(Measurement.get(console, options, cell or " ").maximum for cell in cells)


def _needed(column: Column, width: int) -> int:
    return min(width, _LEAST_FOLDED) if column.folds else width
