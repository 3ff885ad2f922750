"""The page: the template with the findings in it."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from importlib import metadata
from platform import python_version
from typing import Any

from markupsafe import Markup

from components.report_gen.evidence import Evidence
from components.report_gen.findings import Findings
from components.report_gen.sprite import Sprite
from components.shared import chart, html
from components.shared.verdict import Verdict
from trainer import features

_PACKAGES = ("tfx", "tensorflow", "keras", "tensorflow-transform", "apache-beam", "numpy")


def render(e: Evidence, f: Findings) -> str:
    """The page as HTML that needs nothing else.

    Args:
        e: what the nodes left.
        f: what follows from it.
    """
    sprite = Sprite()
    samples = {
        split: [(label, sprite.add(image)) for label, image in some]
        for split, some in e.data.samples.items()
    }
    mistakes = [(mistake, sprite.add(image)) for mistake, image in e.mistakes]
    scale_low = math.floor(min(c.recall.low for c in f.classes if c.count) * 100 - 0.2) / 100
    page = html.template(
        __package__,
        "page.html.j2",
        percent=percent,
        figure="{:.4g}".format,
        place=lambda share: round(max(0.0, share - scale_low) / (1 - scale_low), 4),
    )
    return page.render(
        e=e,
        f=f,
        verdict="Blessed and pushed" if e.pushed_version else "Refused",
        lead=lead(e),
        style=html.style(),
        sprite=sprite,
        names=e.data.class_names,
        digits=e.data.images.fit == features.FIT_CENTER,
        samples=samples,
        mistakes=mistakes,
        curves=training_curves(e.training["history"]),
        reliability=_reliability(f),
        bin_count=len(f.bins),
        has_baseline=any(c.baseline is not None for c in f.classes),
        gates=e.verdict.gates,
        robustness=robustness_curves(e.verdict),
        scale_low=scale_low,
        test_index=test_index(e.mistakes[0][0].id) if e.mistakes else None,
        versions={"python": python_version()} | {name: metadata.version(name) for name in _PACKAGES},
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def lead(e: Evidence) -> str:
    """One line below the verdict: where the model is, or why it is nowhere."""
    if e.pushed_version:
        return f"Every gate was passed; served as version {e.pushed_version}."
    if not e.blessed:
        return "Not pushed: below a gate of the Evaluator. The model in production stays as it was."
    if not e.servable:
        return f"Not pushed: {e.served}. The model in production stays as it was."
    return "Not pushed. The model in production stays as it was."


def percent(share: float, digits: int = 2) -> str:
    """A share for people; an undefined one is a dash."""
    return (
        "\N{EN DASH}"
        if math.isnan(share)
        else f"{share:.{digits}%}".replace("%", "\N{NARROW NO-BREAK SPACE}%")
    )


def training_curves(history: dict[str, list[float]]) -> list[Markup]:
    """A chart for the loss and each metric, by epoch; the validation split may come in seldom.

    Args:
        history: Keras's: lists of values, those of the validation split under `val_` and the name.
    """
    charts = []
    epochs = len(history.get("loss", ()))
    for metric in dict.fromkeys(name.removeprefix("val_") for name in history):
        write = (lambda v: percent(v, 1)) if metric == "accuracy" else "{:.3g}".format
        lines = [
            chart.Series(name, by_epoch(values, epochs), colour)
            for name, colour, values in (
                ("train", 1, history.get(metric, [])),
                ("validation", 2, history.get(f"val_{metric}", [])),
            )
            if values
        ]
        if lines:
            values = [y for line in lines for _, y in line.points]
            charts.append(
                chart.draw(
                    f"{metric.capitalize()} by epoch",
                    chart.Axis("epoch", min(1, epochs - 1), epochs, whole=True),
                    chart.spanning("", values, write),
                    lines,
                )
            )
    return charts


def test_index(origin: str) -> int | None:
    """The place of an example in the test images of an IDX data set, from its id; None for another one."""
    found = re.fullmatch(r"(?:t10k|test)-images[^/]*#(\d+)", origin)
    return int(found[1]) if found else None


def robustness_curves(verdict: Verdict) -> list[Markup]:
    """A chart for each corruption, by severity; 0 is the test images as they are.

    Args:
        verdict: the Evaluator's.
    """
    parts = verdict.robustness
    if not parts:
        return []
    low = math.floor(min(part.accuracy.low for part in parts) * 10) / 10
    strongest = max(part.severity for part in parts)
    charts = []
    for name in dict.fromkeys(part.corruption for part in parts):
        points = {0: verdict.accuracy} | {
            part.severity: part.accuracy for part in parts if part.corruption == name
        }
        line = chart.Series(
            "accuracy",
            [(float(severity), measure.value) for severity, measure in points.items()],
            whiskers=[(measure.low, measure.high) for measure in points.values()],
        )
        x = chart.Axis("severity", 0, strongest, whole=True)
        y = chart.Axis("accuracy", low, 1.0, lambda v: percent(v, 0))
        charts.append(chart.draw(name.capitalize(), x, y, [line]))
    return charts


def by_epoch(values: list[float], epochs: int) -> list[tuple[float, float]]:
    """The points of a metric; what is measured once is measured at the end."""
    first = epochs - len(values) + 1
    return [(float(first + number), value) for number, value in enumerate(values)]


def _reliability(f: Findings) -> Markup:
    least = min(min(part.confidence, part.accuracy.low) for part in f.bins)
    low = math.floor(least * 10) / 10
    axis: dict[str, Any] = {"low": low, "high": 1.0, "number": lambda v: percent(v, 0)}
    return chart.draw(
        "Reliability",
        chart.Axis("probability that the model gave its answer", **axis),
        chart.Axis("share that was right", **axis),
        [
            chart.Series(
                "answers",
                [(part.confidence, part.accuracy.value) for part in f.bins],
                whiskers=[(part.accuracy.low, part.accuracy.high) for part in f.bins],
            )
        ],
        diagonal=True,
        note="on the dashed line, probabilities mean what they say; bars are 95 % intervals",
    )
