"""What a model's answers come to: counts that add up, however the examples are spread over workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from components.shared import measures

_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Paired:
    """The model in production on the same examples.

    Attributes:
        confusion: its counts [C, C]: rows are true classes.
        lost: examples of each class that it has right and the candidate has not, [C].
        won: the other way round, [C].
    """

    confusion: NDArray[np.int64]
    lost: NDArray[np.int64]
    won: NDArray[np.int64]

    def __add__(self, other: Self) -> Self:
        """Both."""
        return type(self)(self.confusion + other.confusion, self.lost + other.lost, self.won + other.won)


@dataclass(frozen=True)
class Tally:
    """A candidate on some examples.

    Attributes:
        confusion: counts [C, C]: rows are true classes.
        log_loss: the sum of the examples' cross entropies, in nats.
        reliability: sums by confidence, of measures.reliability_sums.
        paired: the model in production; None where there is none.
    """

    confusion: NDArray[np.int64]
    log_loss: float
    reliability: NDArray[np.float64]
    paired: Paired | None = None

    def __add__(self, other: Self) -> Self:
        """Both; the model in production is left out where one of the two lacks it."""
        return type(self)(
            self.confusion + other.confusion,
            self.log_loss + other.log_loss,
            self.reliability + other.reliability,
            self.paired + other.paired if self.paired and other.paired else None,
        )

    @property
    def examples(self) -> int:
        """How many."""
        return int(self.confusion.sum())


def count(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    in_production: NDArray[np.float32] | None = None,
) -> Tally:
    """Count some answers.

    Args:
        labels: [N], below C.
        probabilities: the candidate's, [N, C].
        in_production: the other model's, [N, C].
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    right = predicted == labels
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    paired = None
    if in_production is not None:
        other = in_production.argmax(axis=1)
        other_right = other == labels
        paired = Paired(
            confusion=measures.confusion(labels, other, classes),
            lost=np.bincount(labels[other_right & ~right], minlength=classes),
            won=np.bincount(labels[right & ~other_right], minlength=classes),
        )
    return Tally(
        confusion=measures.confusion(labels, predicted, classes),
        log_loss=float(-np.log(np.maximum(of_label, _TINY)).sum()),
        reliability=measures.reliability_sums(probabilities.max(axis=1), right),
        paired=paired,
    )
