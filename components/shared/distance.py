"""How far apart two samples are, and how far chance alone would bring them.

Thresholds are for what sampling does not explain: a small test split differs from training by a good deal
without anything being wrong. So each distance comes with its noise, the distance that two samples of the
same source stay under in 999 of 1,000 comparisons, and a check asks whether `distance - noise` is over its
threshold. With 60,000 and 10,000 examples the noise is 0.02; with 550 and 200 it is 0.16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = Sequence[int] | NDArray[np.int64]
FALSE_ALARMS = 1e-3  # of comparisons of two samples of the same source
_SIGMAS = 3.9  # a normal variable is within so many of them but for 1e-4: one in 1,000 with ten classes


@dataclass(frozen=True)
class Distance:
    """A distance between two distributions, 0 … 1, and what chance explains of it."""

    value: float
    noise: float

    @property
    def excess(self) -> float:
        """What chance does not explain."""
        return self.value - self.noise


def of_labels(first: Counts, second: Counts) -> tuple[Distance, int]:
    """L-infinity between two label distributions, from counts [C], and the class that is furthest apart.

    The noise of a class with share p is that of a difference of two proportions: 3.9 standard deviations,
    sqrt(p (1 - p) (1/n + 1/m)). Where the class counts differ, missing classes count as empty.
    """
    classes = max(len(first), len(second))
    a, b = (np.pad(np.asarray(c, float), (0, classes - len(c))) for c in (first, second))
    n, m = a.sum(), b.sum()
    pooled = (a + b) / (n + m)
    noise = _SIGMAS * np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    apart = np.abs(a / n - b / m)
    worst = int(np.argmax(apart - noise))
    return Distance(float(apart[worst]), float(noise[worst])), worst


def of_histograms(first: Counts, second: Counts) -> Distance:
    """L-infinity between two cumulative distributions, from counts in the same bins.

    Cumulative, because that hardly depends on the bins. The noise is the critical value of Smirnov's
    two-sample test, sqrt(-ln(alpha / 2) / 2 · (n + m) / (n m)).
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    n, m = a.sum(), b.sum()
    apart = np.abs(np.cumsum(a) / n - np.cumsum(b) / m).max()
    return Distance(float(apart), math.sqrt(-math.log(FALSE_ALARMS / 2) / 2 * (n + m) / (n * m)))


def of_shares(first: float, n: int, second: float, m: int) -> Distance:
    """How far the second share lies below the first, each of n and m trials; negative where above."""
    pooled = (first * n + second * m) / (n + m)
    noise = _SIGMAS * math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return Distance(first - second, noise)
