"""Charts as SVG text: lines and points in a frame with axes, coloured by the page's own variables.

A chart that takes its colours from the page is as good in the dark, in the light and on paper; none of the
locked packages draws one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 26, 38
_TICKS = 5

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line through points; its colour is the page's variable `--series-<colour>`.

    Attributes:
        name: for the legend and readers of screens.
        points: x and y, in order.
        colour: 1, 2, …
        whiskers: low and high y at each point, or nothing.
        joined: whether a line goes through the points.
    """

    name: str
    points: Sequence[Point]
    colour: int = 1
    whiskers: Sequence[tuple[float, float]] = field(default_factory=tuple)
    joined: bool = True


@dataclass(frozen=True)
class Axis:
    """What an axis says: its title, its range, and how its numbers are written."""

    title: str
    low: float
    high: float
    number: Callable[[float], str] = "{:g}".format
    whole: bool = False  # ticks at whole numbers alone

    def ticks(self) -> list[float]:
        """About five round numbers of the range."""
        step = _round_step((self.high - self.low) / _TICKS)
        if self.whole:
            step = max(1.0, step)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


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
        title: what the chart shows, for readers of screens too.
        x: the horizontal axis.
        y: the vertical axis.
        series: what is drawn.
        diagonal: draw the line y = x.
        note: one line below the title.
    """

    def at(point: Point) -> Point:
        return (
            _LEFT + (point[0] - x.low) / ((x.high - x.low) or 1) * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BOTTOM - (point[1] - y.low) / ((y.high - y.low) or 1) * (HEIGHT - _TOP - _BOTTOM),
        )

    parts = [*_grid(x, y, at)]
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        parts.append(_line(at((low, low)), at((high, high)), "guide"))
    for one in series:
        parts += _series(one, at)
    legend = Markup("").join(
        Markup('<span class="key key-{}">{}</span>').format(one.colour, one.name) for one in series
    )
    return Markup(
        '<figure class="chart"><figcaption><b>{title}</b>{note}</figcaption>'
        '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">{body}</svg>'
        '<div class="legend">{legend}</div></figure>'
    ).format(
        title=title,
        note=Markup(" <small>{}</small>").format(note) if note else "",
        width=WIDTH,
        height=HEIGHT,
        body=Markup("").join(parts),
        legend=legend if len(series) > 1 else "",
    )


def _grid(x: Axis, y: Axis, at: Callable[[Point], Point]) -> list[Markup]:
    parts = []
    for value in y.ticks():
        left, height = at((x.low, value))
        parts.append(_line((left, height), (WIDTH - _RIGHT, height), "grid"))
        parts.append(_text(left - 7, height + 4, y.number(value), "end"))
    bottom = HEIGHT - _BOTTOM
    parts.append(_line((_LEFT, bottom), (WIDTH - _RIGHT, bottom), "axis"))
    for value in x.ticks():
        across, _ = at((value, y.low))
        parts.append(_line((across, bottom), (across, bottom + 4), "axis"))
        parts.append(_text(across, bottom + 17, x.number(value), "middle"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 4, x.title, "middle", "title"))
    parts.append(_text(_LEFT - 44, _TOP - 14, y.title, "start", "title"))
    return parts


def _series(one: Series, at: Callable[[Point], Point]) -> list[Markup]:
    points = [at(point) for point in one.points]
    parts = []
    if one.joined and len(points) > 1:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(Markup('<polyline class="line series-{}" points="{}"/>').format(one.colour, path))
    for (px, _), (value_x, _), (low, high) in zip(points, one.points, one.whiskers, strict=False):
        top, bottom = at((value_x, high))[1], at((value_x, low))[1]
        parts.append(_line((px, top), (px, bottom), f"whisker series-{one.colour}"))
    for (px, py), (value_x, value_y) in zip(points, one.points, strict=True):
        parts.append(
            Markup(
                '<circle class="dot series-{}" cx="{:.1f}" cy="{:.1f}" r="3.5">'
                "<title>{}: {:.4g}, {:.4g}</title></circle>"
            ).format(one.colour, px, py, one.name, value_x, value_y)
        )
    return parts


def _line(start: Point, end: Point, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        kind, *start, *end
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>').format(
        x, y, anchor, kind, escape(text)
    )


def _round_step(step: float) -> float:
    """The nearest of 1, 2 or 5 times a power of ten that is not below."""
    power: float = 10.0 ** math.floor(math.log10(step))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)
