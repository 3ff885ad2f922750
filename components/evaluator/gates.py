"""What a model must reach, and the judgement: pure functions on arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.shared import measures
from components.shared.verdict import AT_LEAST, AT_MOST, OVERALL, Baseline, Bound, Gate, Measure, Robustness

_RESAMPLES = 200
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Thresholds:
    """The gates; the names are those of the settings.

    Attributes:
        accuracy: least overall accuracy.
        class_accuracy: least accuracy of each class.
        class_examples: a class with fewer test examples cannot be judged, and the model is refused.
        calibration_error: greatest expected calibration error.
        accuracy_drop: how much overall accuracy may be lost against the baseline.
        class_accuracy_drop: the same for each class.
        robustness: least accuracy under each corruption, mean of its severities; None: no gate.
        robustness_examples: test examples that are corrupted; 0: none.
    """

    accuracy: float
    class_accuracy: float
    class_examples: int
    calibration_error: float
    accuracy_drop: float
    class_accuracy_drop: float
    robustness: float | None = None
    robustness_examples: int = 0


@dataclass(frozen=True)
class Answers:
    """What a model says of examples.

    Attributes:
        labels: int64 [N].
        probabilities: float32 [N, C].
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def classes(self) -> int:
        """C."""
        return self.probabilities.shape[1]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the answer is the label, [N]."""
        return self.probabilities.argmax(axis=1) == self.labels

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Counts [C, C]: rows are true classes."""
        return measures.confusion(self.labels, self.probabilities.argmax(axis=1), self.classes)

    @property
    def log_loss(self) -> float:
        """Mean cross entropy, in nats."""
        of_label = self.probabilities[np.arange(len(self.labels)), self.labels].astype(np.float64)
        return float(-np.log(np.maximum(of_label, _TINY)).mean())

    def counts(self) -> dict[int, int]:
        """How many examples each class has."""
        return dict(enumerate(np.bincount(self.labels, minlength=self.classes).tolist()))


def accuracy(right: NDArray[np.bool_]) -> Measure:
    """The share that is right, with Wilson's interval."""
    share = measures.wilson(int(right.sum()), len(right))
    return Measure(share.value, share.low, share.high, len(right))


def class_accuracy(answers: Answers) -> dict[int, Measure]:
    """Accuracy of each class that there are examples of."""
    return {
        number: accuracy(answers.right[answers.labels == number])
        for number, count in answers.counts().items()
        if count
    }


def drop(baseline: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> Measure:
    """How much accuracy is lost, both models having seen the same examples.

    The interval is the normal one for the difference of paired shares, its variance estimated with one half
    more of each kind of disagreement (A. Agresti and Y. Min 2005), so that few disagreements are no
    certainty.

    Args:
        baseline: where the baseline is right, [N], N > 0.
        candidate: where the candidate is, [N].
    """
    count = len(baseline)
    lost, won = int((baseline & ~candidate).sum()), int((candidate & ~baseline).sum())
    value = (lost - won) / count
    enlarged, padded = count + 2, (lost + 0.5, won + 0.5)
    centre = (padded[0] - padded[1]) / enlarged
    deviation = np.sqrt(sum(padded) - (padded[0] - padded[1]) ** 2 / enlarged) / enlarged
    half = measures.Z_95 * float(deviation)
    return Measure(value, max(-1.0, min(value, centre - half)), min(1.0, max(value, centre + half)), count)


def calibration(answers: Answers) -> Measure:
    """Expected calibration error in ten bins, with a bootstrap interval from a fixed seed."""
    confidence, right = answers.probabilities.max(axis=1), answers.right
    value = measures.calibration_error(measures.reliability(confidence, right))
    # The error is a sum over bins, so that resampling the sums' terms is all that a resampled error needs.
    at = np.minimum((confidence * 10).astype(np.int64), 9)
    gap = right - confidence.astype(np.float64)
    generator, count = np.random.default_rng(0), len(right)
    errors = []
    for _ in range(_RESAMPLES):
        chosen = generator.integers(count, size=count)
        sums = np.bincount(at[chosen], gap[chosen], minlength=10)
        errors.append(float(np.abs(sums).sum()) / count)
    low, high = np.quantile(errors, (0.025, 0.975)).tolist()
    # Resampling adds noise to every bin, which never makes the sum of distances smaller.
    return Measure(value, min(value, low), max(value, high), count)


def compare(version: str, fingerprint: str, baseline: Answers, candidate: Answers) -> Baseline:
    """The baseline's figures, and what the candidate loses against it."""
    return Baseline(
        version=version,
        fingerprint=fingerprint,
        accuracy=accuracy(baseline.right),
        class_accuracy=class_accuracy(baseline),
        accuracy_drop=drop(baseline.right, candidate.right),
        class_accuracy_drop={
            int(number): drop(
                baseline.right[candidate.labels == number], candidate.right[candidate.labels == number]
            )
            for number in np.unique(candidate.labels)
        },
    )


def judge(
    thresholds: Thresholds,
    answers: Answers,
    baseline: Baseline | None = None,
    robustness: tuple[Robustness, ...] = (),
) -> tuple[Gate, ...]:
    """Every gate, in the order in which a person asks.

    Args:
        thresholds: the gates' settings.
        answers: the candidate's.
        baseline: the model in production, compared with the candidate.
        robustness: the candidate's accuracy on corrupted images.
    """
    return tuple(_gates(thresholds, answers, baseline, robustness))


def _gates(
    thresholds: Thresholds,
    answers: Answers,
    baseline: Baseline | None,
    robustness: tuple[Robustness, ...],
) -> Iterator[Gate]:
    counts, by_class = answers.counts(), class_accuracy(answers)
    judged = [number for number, count in counts.items() if count >= max(1, thresholds.class_examples)]
    yield at_least("accuracy", OVERALL, "accuracy", accuracy(answers.right), thresholds.accuracy)
    yield from _enough_examples(counts, thresholds.class_examples)
    for number in judged:
        measure = by_class[number]
        yield at_least("class_accuracy", f"class {number}", "accuracy", measure, thresholds.class_accuracy)
    yield at_most(
        "calibration_error",
        OVERALL,
        "calibration error",
        calibration(answers),
        thresholds.calibration_error,
    )
    if baseline:
        metric = "accuracy lost against the baseline"
        yield at_most("accuracy_drop", OVERALL, metric, baseline.accuracy_drop, thresholds.accuracy_drop)
        for number in judged:
            lost = baseline.class_accuracy_drop[number]
            yield at_most(
                "class_accuracy_drop", f"class {number}", metric, lost, thresholds.class_accuracy_drop
            )
    if thresholds.robustness is not None:
        for corruption in dict.fromkeys(part.corruption for part in robustness):
            parts = [part.accuracy for part in robustness if part.corruption == corruption]
            yield at_least("robustness", corruption, "accuracy", _mean(parts), thresholds.robustness)


def _enough_examples(counts: dict[int, int], least: int) -> Iterator[Gate]:
    """One gate for each class with too few examples; where all have enough, one for the smallest."""
    too_few = [number for number, count in counts.items() if count < least]
    smallest = min(counts, key=counts.__getitem__)
    for number in too_few or [smallest]:
        found = counts[number]
        yield Gate(
            "class_examples",
            f"class {number}",
            "test examples",
            float(found),
            AT_LEAST,
            float(least),
            found >= least,
            None,
            found,
        )


def _mean(parts: list[Measure]) -> Measure:
    """The mean over severities; the images are the same ones, so that their number does not grow."""
    count = parts[0].examples
    share = sum(part.value for part in parts) / len(parts)
    interval = measures.wilson(round(share * count), count)
    return Measure(share, min(share, interval.low), max(share, interval.high), count)


def at_least(name: str, where: str, metric: str, found: Measure, threshold: float) -> Gate:
    """A gate that refuses what is less."""
    return _gate(name, where, metric, found, AT_LEAST, threshold, found.value >= threshold)


def at_most(name: str, where: str, metric: str, found: Measure, threshold: float) -> Gate:
    """A gate that refuses what is more."""
    return _gate(name, where, metric, found, AT_MOST, threshold, found.value <= threshold)


def _gate(
    name: str, where: str, metric: str, found: Measure, bound: Bound, threshold: float, passed: bool
) -> Gate:
    interval = (found.low, found.high)
    return Gate(name, where, metric, found.value, bound, threshold, passed, interval, found.examples)
