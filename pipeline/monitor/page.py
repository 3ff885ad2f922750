"""The page of `mnist monitor`: what requests are like, compared with what the model was trained on."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from components.shared import chart, html
from pipeline.monitor.drift import Findings

_BARS = 32  # bins of a drawn histogram: a fact has eight times as many


def render(findings: Findings) -> str:
    """The page as HTML that needs nothing else."""
    return html.template(__package__, "page.html.j2").render(
        f=findings, style=html.style(), charts=_charts(findings), classes=_classes(findings)
    )


def _charts(findings: Findings) -> list[Markup]:
    drawn = []
    for each in findings.comparisons:
        trained = findings.expected.histograms.get(each.fact)
        if trained is None:
            continue
        requested = findings.observed.histograms[each.fact]
        lines = [_shares(trained), _shares(requested)]
        top = max(share for line in lines for _, share in line)
        drawn.append(
            chart.draw(
                each.fact.replace("_", " "),
                chart.Axis("", 0.0, 1.0),
                chart.Axis("share of the images", 0.0, top * 1.08, "{:.0%}".format),
                [
                    chart.Series("training", lines[0], 1),
                    chart.Series("requests", lines[1], 2),
                ],
                note="drift" if each.drifted else "",
            )
        )
    return drawn


def _shares(histogram: NDArray[np.int64]) -> list[tuple[float, float]]:
    counts = np.asarray(histogram).reshape(_BARS, -1).sum(axis=1)
    middles = (np.arange(_BARS) + 0.5) / _BARS
    return list(zip(middles.tolist(), (counts / counts.sum()).tolist(), strict=True))


def _classes(findings: Findings) -> list[tuple[int, float, float]]:
    """Each class with its share of the training and of the answers."""
    trained, requested = findings.expected.classes, findings.observed.classes
    if not requested.sum():
        return []
    shares = zip(trained / trained.sum(), requested / requested.sum(), strict=True)
    return [(number, float(a), float(b)) for number, (a, b) in enumerate(shares)]
