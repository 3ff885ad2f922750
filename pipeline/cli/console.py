"""What a person sees of a run: one line a node, live on a terminal, plain elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from pipeline.nodes import NodeState

_STYLES = {
    NodeState.WAITING: ("·", "dim"),
    NodeState.RUNNING: ("▶", "bold cyan"),
    NodeState.CACHED: ("=", "blue"),
    NodeState.DONE: ("✓", "green"),
    NodeState.FAILED: ("✗", "bold red"),
    NodeState.SKIPPED: ("-", "yellow"),
    NodeState.INTERRUPTED: ("✗", "yellow"),
}
_REFRESHES_PER_S = 4
_PLAIN_PROGRESS_EVERY_S = 10.0


class RunView:
    """Observes a run (see pipeline.local.runner.Observer) and draws it."""

    def __init__(self, terminal: TextIO) -> None:
        self.console = Console(file=terminal, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[NodeState, float]] = {}  # state; seconds, or when it began
        self._note = ""
        self._last_plain_progress = 0.0

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keep the table on the terminal up to date while the context lasts."""
        if not self.console.is_terminal:
            yield
            return
        with Live(
            console=self.console,
            get_renderable=self.table,
            refresh_per_second=_REFRESHES_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as self._live:
            yield
        self._live = None

    def note(self, text: str) -> None:
        """One line about what goes on between nodes."""
        self._note = text
        if not self.console.is_terminal:
            self.console.print(text)

    def planned(self, nodes: list[str]) -> None:
        """Show all nodes as waiting."""
        with self._lock:
            self._note = ""
            self._rows = dict.fromkeys(nodes, (NodeState.WAITING, 0.0))

    def started(self, node: str) -> None:
        """Show the node as running."""
        with self._lock:
            self._note = ""
            self._rows[node] = (NodeState.RUNNING, time.monotonic())

    def progressed(self, progress: dict[str, Any]) -> None:
        """Show how far training has come."""
        if not progress:
            return
        text = (
            f"step {progress['step']:,} of {progress['steps']:,} · loss {progress['loss']:.3f}"
            + "".join(f" · {name} {value:.4f}" for name, value in progress["metrics"].items())
        )
        if progress["images_per_s"]:  # not before the second step
            text += f" · {progress['images_per_s']:,.0f} images/s"
        self._note = text
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last_plain_progress > _PLAIN_PROGRESS_EVERY_S:
            self._last_plain_progress = now
            self.console.print(f"  {text}")

    def finished(self, node: str, state: NodeState, seconds: float) -> None:
        """Show how the node ended."""
        with self._lock:
            self._note = ""
            self._rows[node] = (state, seconds)
        if not self.console.is_terminal:
            self.console.print(f"{node:<18} {state:<8} {seconds:7.1f} s")

    def table(self) -> Table | Text:
        """The nodes so far, or the note while there are none."""
        with self._lock:
            if not self._rows:
                return Text(self._note, style="dim")
            table = Table.grid(padding=(0, 2))
            table.add_column()
            table.add_column(min_width=16)
            table.add_column(min_width=7)
            table.add_column(justify="right", min_width=8)
            table.add_column(no_wrap=True)
            for node, (state, value) in self._rows.items():
                seconds = time.monotonic() - value if state == NodeState.RUNNING else value
                symbol, style = _STYLES[state]
                table.add_row(
                    Text(symbol, style=style),
                    node,
                    Text(state, style=style),
                    "" if state == NodeState.WAITING else f"{seconds:.1f} s",
                    Text(self._note if state == NodeState.RUNNING else "", style="dim"),
                )
            return table


@contextmanager
def download_bar(console: Console) -> Iterator[Any]:
    """A progress bar; yields `show(what, done_bytes, total_bytes or None)`."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done_bytes: int, total_bytes: int | None) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total_bytes)
            bar.update(tasks[what], completed=done_bytes, total=total_bytes)

        yield show
