"""What a classifier's answers come to: pure functions on arrays and counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054  # quantile of the normal distribution for intervals of 95 %


BINS = 10  # of confidence


@dataclass(frozen=True)
class Measure:
    """A figure with its 95 % interval and the number of examples behind it; a change may be negative."""

    value: float
    low: float
    high: float
    examples: int


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence.

    Attributes:
        low: least confidence of the bin.
        high: greatest.
        confidence: their mean confidence.
        accuracy: the share of them that is right.
    """

    low: float
    high: float
    confidence: float
    accuracy: Measure


def wilson(right: int, count: int) -> Measure:
    """A share with Wilson's score interval (E. B. Wilson 1927): holds near 0 and 1, and for few examples.

    Args:
        right: how many were right.
        count: of how many; with none, the interval is all of [0, 1] and the value is NaN.
    """
    if not count:
        return Measure(math.nan, 0.0, 1.0, 0)
    share, z2 = right / count, Z_95**2
    centre = share + z2 / (2 * count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    scale = 1 + z2 / count
    # Rounding must not put a share of 0 or 1 outside its own interval.
    return Measure(share, min(share, (centre - half) / scale), max(share, (centre + half) / scale), count)


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts int64 [C, C]: rows are true classes, columns predicted ones."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def reliability_sums(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sums over the answers in BINS bins of equal width, which add up over parts of the data.

    Args:
        confidence: probability of the predicted class, [N].
        right: whether it is the true one, [N].

    Returns:
        float64 [BINS, 4]: answers, right ones, their confidence, and (right - confidence) squared.
    """
    at = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    sure = confidence.astype(np.float64)
    values = (np.ones_like(sure), right.astype(np.float64), sure, (right - sure) ** 2)
    return np.stack([np.bincount(at, value, minlength=BINS) for value in values], axis=1)


def reliability(sums: NDArray[np.float64]) -> tuple[Bin, ...]:
    """The bins that hold any answer, from what `reliability_sums` gives."""
    return tuple(
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            confidence=float(confidence / count),
            accuracy=wilson(round(right), round(count)),
        )
        for number, (count, right, confidence, _) in enumerate(sums)
        if count
    )


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Expected calibration error: mean distance of accuracy and confidence, bins weighted by count."""
    total = sum(part.accuracy.examples for part in bins)
    return sum(p.accuracy.examples * abs(p.accuracy.value - p.confidence) for p in bins) / total
