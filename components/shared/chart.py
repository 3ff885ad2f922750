"""Charts by matplotlib, as SVG text that is part of the page: its colours, and its font.

A chart that takes its colours from the page is as good in the dark, in the light and on paper.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 460, 260  # points: CSS makes the chart as wide as its column
_TICKS = 5
# matplotlib wants colours and the page has variables: each of these stands for one, nothing else has it.
_COLOURS = {
    "var(--ink)": "#010203",
    "var(--soft)": "#010204",
    "var(--rule)": "#010205",
    "var(--panel)": "#010206",
} | {f"var(--series-{number})": f"#01030{number}" for number in range(1, 7)}
_INK, _SOFT, _RULE, _PANEL = list(_COLOURS.values())[:4]

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line through points; its colour is the page's variable `--series-<colour>`.

    Attributes:
        name: for the legend.
        points: x and y, in order.
        colour: 1 to 6.
        whiskers: low and high y at each point, or nothing.
    """

    name: str
    points: Sequence[Point]
    colour: int = 1
    whiskers: Sequence[tuple[float, float]] = field(default_factory=tuple)


@dataclass(frozen=True)
class Axis:
    """What an axis says: its title, its range, and how its numbers are written."""

    title: str
    low: float
    high: float
    number: Callable[[float], str] = "{:g}".format
    whole: bool = False  # ticks at whole numbers alone


def spanning(title: str, values: Sequence[float], number: Callable[[float], str] = "{:g}".format) -> Axis:
    """An axis whose range holds all values and a little more, never less than nothing."""
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return Axis(title, max(0.0, low - room) if low >= 0 else low - room, high + room, number)


def draw(
    title: str, x: Axis, y: Axis, series: Sequence[Series], diagonal: bool = False, note: str = ""
) -> Markup:
    """One chart.

    Args:
        title: what the chart shows, for readers of screens too; another one for each chart of a page.
        x: the horizontal axis.
        y: the vertical axis.
        series: what is drawn.
        diagonal: draw the line y = x.
        note: one line below the title.
    """
    legend = Markup("").join(
        Markup('<span class="key key-{}">{}</span>').format(one.colour, one.name) for one in series
    )
    return Markup(
        '<figure class="chart"><figcaption><b>{title}</b>{note}</figcaption>{svg}'
        '<div class="legend">{legend}</div></figure>'
    ).format(
        title=title,
        note=Markup(" <small>{}</small>").format(note) if note else "",
        svg=_for_page(_svg(title, x, y, series, diagonal), title),
        legend=legend if len(series) > 1 else "",
    )


def _svg(title: str, x: Axis, y: Axis, series: Sequence[Series], diagonal: bool) -> str:
    """matplotlib's file."""
    # Here, because it takes half a second and a run whose report is cached does without.
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    # Text stays text. The salt makes the ids of a chart its own, and the same each time.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.size": 11.5}):
        figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(x.low, x.high), ylim=(y.low, y.high))
        axes.spines[["left", "top", "right"]].set_visible(False)
        axes.spines["bottom"].set_color(_SOFT)
        axes.grid(axis="y", color=_RULE, linewidth=1)
        axes.tick_params(colors=_SOFT, length=4)
        axes.tick_params(axis="y", length=0)
        axes.set_axisbelow(True)
        axes.set_xlabel(x.title, color=_INK)
        axes.set_title(y.title, color=_INK, loc="left", fontsize=11.5)
        for axis, side in ((axes.xaxis, x), (axes.yaxis, y)):
            axis.set_major_locator(MaxNLocator(_TICKS, steps=[1, 2, 5, 10], integer=side.whole))
            axis.set_major_formatter(FuncFormatter(lambda value, _, write=side.number: write(value)))
        if diagonal:
            low, high = max(x.low, y.low), min(x.high, y.high)
            axes.plot([low, high], [low, high], color=_SOFT, linestyle="--", linewidth=1)
        for one in series:
            _plot(axes, one)
        file = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return file.getvalue()


def _plot(axes: Axes, one: Series) -> None:
    colour = _COLOURS[f"var(--series-{one.colour})"]
    across, up = zip(*one.points, strict=True)
    # Not clipped: a dot at an edge of the frame is a whole dot.
    if one.whiskers:
        low, high = zip(*one.whiskers, strict=True)
        axes.vlines(across, low, high, color=colour, linewidth=2, alpha=0.55, clip_on=False)
    axes.plot(
        across,
        up,
        color=colour,
        linewidth=2.2,
        marker="o",
        markersize=7,
        markeredgecolor=_PANEL,
        clip_on=False,
    )


def _for_page(svg: str, title: str) -> Markup:
    """The file as a part of the page: no prolog, no style for the whole page, no id that nothing needs."""
    drawing = svg[svg.index(">", svg.index("<svg")) + 1 :]
    drawing = re.sub(r"<style.*?</style>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing).replace("xlink:href", "href")
    drawing = re.sub(r" ?font-family: [^;\"]*;?", "", drawing)
    for variable, colour in _COLOURS.items():
        drawing = drawing.replace(colour, variable)
    opening = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, title)
    return opening + Markup(drawing)
