"""No cell of a table is cut off, however wide the terminal is."""

from __future__ import annotations

import io

import pytest
from rich.bar import Bar
from rich.console import Console

from pipeline.cli.tables import Column, print_table

COLUMNS = (
    Column("image", folds=True),
    Column("digit", right=True),
    Column("label", right=True),
    Column("probability", right=True),
    Column("", spare=2),
    Column("runner-up", right=True),
    Column("ms", right=True, spare=1),
)
NAME = "a-folder/with-a-rather-long-name-of-a-picture.png"
ROW = (NAME, "7", "[red]1[/]", "100.0%", Bar(1.0, 0.0, 0.9, width=20), "9 (12.3%)", "1234.5")
SPARE = "1234.5"


def printed(width: int, terminal: bool) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    print_table(COLUMNS, [ROW, ROW], console)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_terminal_gets_every_cell_that_it_has_room_for(width: int) -> None:
    lines = printed(width, terminal=True)

    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for cell in ("7", "1", "100.0%", "9 (12.3%)", SPARE):
        assert cell in text
    assert ("\u2588" in text) == (width >= 80)
    folded = "".join(line[: max(len(NAME), width)].split(" ")[0] for line in lines[1:])
    assert folded == NAME * 2


def test_a_column_that_is_spare_goes_where_it_would_be_cut() -> None:
    text = "\n".join(printed(52, terminal=True))
    assert SPARE not in text
    assert "9 (12.3%)" in text


def test_without_a_terminal_a_row_is_a_line() -> None:
    head, *rows = printed(80, terminal=False)
    assert head.split() == ["image", "digit", "label", "probability", "runner-up", "ms"]
    assert len(rows) == 2
    assert all(row.startswith(NAME) and row.endswith(SPARE) for row in rows)


def test_a_table_without_rows_has_its_head() -> None:
    file = io.StringIO()
    print_table(COLUMNS, [], Console(file=file, width=80))
    assert file.getvalue().startswith("image")
