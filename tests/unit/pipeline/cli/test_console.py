"""What a person sees: plain lines without a terminal, a live table on one."""

from __future__ import annotations

import io

from rich.text import Text

from pipeline.cli.console import RunView

PROGRESS = {"step": 50, "steps": 200, "loss": 0.5, "metrics": {"accuracy": 0.875}, "images_per_s": 1234.0}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def drive(view: RunView) -> None:
    view.planned(["Images", "Trainer", "Pusher"])
    view.started("Images")
    view.finished("Images", "cached", 0.01)
    view.started("Trainer")
    view.progressed(PROGRESS)


def test_without_a_terminal_there_are_plain_lines() -> None:
    stream = io.StringIO()
    view = RunView(stream)
    with view.live():
        view.note("loading")
        drive(view)
        view.progressed(PROGRESS)  # At once: not worth a second line.
        view.progressed({})
        view.finished("Trainer", "failed", 12.34)
    assert stream.getvalue() == (
        "loading\n"
        "Images             cached       0.0 s\n"
        "  step 50 of 200 · loss 0.500 · accuracy 0.8750 · 1,234 images/s\n"
        "Trainer            failed      12.3 s\n"
    )


def test_on_a_terminal_there_is_one_line_a_node() -> None:
    view = RunView(Terminal())
    view.console.width = 120
    drive(view)
    with view.console.capture() as capture:
        view.console.print(view.table())
    lines = [line.split() for line in Text.from_ansi(capture.get()).plain.splitlines()]
    assert lines[0][1:4] == ["Images", "cached", "0.0"]
    assert lines[1][1:3] == ["Trainer", "running"]
    assert "50" in lines[1]
    assert lines[2][1:] == ["Pusher", "waiting"]


def test_a_narrow_terminal_still_has_one_line_a_node() -> None:
    view = RunView(Terminal())
    view.console.width = 40
    drive(view)
    with view.console.capture() as capture:
        view.console.print(view.table(), soft_wrap=False)
    assert len(capture.get().splitlines()) == 3
