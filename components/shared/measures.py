"""What a classifier's answers on the test split come to: pure functions on arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054  # quantile of the normal distribution for intervals of 95 %


@dataclass(frozen=True)
class Interval:
    """A share with its 95 % interval, all in [0, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Bin:
    """Answers of about the same confidence.

    Attributes:
        low: least confidence of the bin.
        high: greatest.
        count: how many answers.
        confidence: their mean confidence.
        accuracy: the share of them that is right.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: Interval


@dataclass(frozen=True)
class Mistake:
    """A test image that was classified wrongly; `index` is its place in the test file, from 0."""

    index: int
    label: int
    predicted: int
    label_probability: float
    predicted_probability: float


def wilson(right: int, count: int) -> Interval:
    """Wilson's score interval for a share (E. B. Wilson 1927): holds near 0 and 1, and for few examples.

    Args:
        right: how many were right.
        count: of how many; with none, the interval is all of [0, 1] and the value is NaN.
    """
    if not count:
        return Interval(math.nan, 0.0, 1.0)
    share, z2 = right / count, Z_95**2
    centre = share + z2 / (2 * count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    scale = 1 + z2 / count
    # Rounding must not put a share of 0 or 1 outside its own interval.
    return Interval(share, min(share, (centre - half) / scale), max(share, (centre + half) / scale))


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts int64 [C, C]: rows are true classes, columns predicted ones."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def reliability(
    confidence: NDArray[np.float32], right: NDArray[np.bool_], bins: int = 10
) -> tuple[Bin, ...]:
    """Answers by confidence, in bins of equal width that hold any.

    Args:
        confidence: probability of the predicted class, [N].
        right: whether it is the true one, [N].
        bins: how many parts [0, 1] is cut into.
    """
    at = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return tuple(
        Bin(
            low=number / bins,
            high=(number + 1) / bins,
            count=int(inside.sum()),
            confidence=float(confidence[inside].mean(dtype=np.float64)),
            accuracy=wilson(int(right[inside].sum()), int(inside.sum())),
        )
        for number in range(bins)
        if (inside := at == number).any()
    )


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """Expected calibration error: mean distance of accuracy and confidence, bins weighted by count."""
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.accuracy.value - part.confidence) for part in bins) / total


def worst_mistakes(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], most: int
) -> tuple[Mistake, ...]:
    """The mistakes that gave the true class the least probability, worst first.

    Args:
        labels: [N].
        probabilities: [N, C].
        most: how many at most.
    """
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    of_label = probabilities[wrong, labels[wrong]]
    order = np.argsort(of_label, kind="stable")[:most]
    return tuple(
        Mistake(
            index=int(index),
            label=int(labels[index]),
            predicted=int(predicted[index]),
            label_probability=float(probabilities[index, labels[index]]),
            predicted_probability=float(probabilities[index, predicted[index]]),
        )
        for index in wrong[order]
    )
