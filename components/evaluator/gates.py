"""What a model must reach, and the judgement: pure functions on counts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from components.evaluator.tally import Tally
from components.shared import measures
from components.shared.measures import Measure
from components.shared.verdict import (
    AT_LEAST,
    AT_MOST,
    OVERALL,
    VALIDATION,
    Baseline,
    Bound,
    Gate,
    Lite,
    Robustness,
)
from trainer.features import LITE_FILE

_RESAMPLES = 2000

Counts = NDArray[np.int64]


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
        metrics: least values of what the model function reports of the validation split, by name.
        metrics_at_most: greatest values, likewise.
    """

    accuracy: float
    class_accuracy: float
    class_examples: int
    calibration_error: float
    accuracy_drop: float
    class_accuracy_drop: float
    robustness: float | None = None
    robustness_examples: int = 0
    metrics: Mapping[str, float] | None = None
    metrics_at_most: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Reported:
    """What the Trainer's model function said of the validation split.

    Attributes:
        metrics: by name.
        examples: how many there were.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    examples: int = 0


def overall_accuracy(confusion: Counts) -> Measure:
    """Accuracy from counts [C, C]."""
    return measures.wilson(int(confusion.trace()), int(confusion.sum()))


def class_accuracy(confusion: Counts) -> dict[int, Measure]:
    """Accuracy of each class that there are examples of, from counts [C, C]."""
    return {
        number: measures.wilson(int(confusion[number, number]), count)
        for number, count in class_counts(confusion).items()
        if count
    }


def class_counts(confusion: Counts) -> dict[int, int]:
    """How many examples each class has."""
    return dict(enumerate(confusion.sum(axis=1).tolist()))


def drop(lost: int, won: int, count: int) -> Measure:
    """How much accuracy is lost, both models having seen the same examples.

    The interval is the normal one for the difference of paired shares, its variance estimated with one half
    more of each kind of disagreement (A. Agresti and Y. Min 2005), so that few disagreements are no
    certainty.

    Args:
        lost: examples that the baseline alone has right.
        won: examples that the candidate alone has right.
        count: examples, more than none.
    """
    value = (lost - won) / count
    enlarged, padded = count + 2, (lost + 0.5, won + 0.5)
    centre = (padded[0] - padded[1]) / enlarged
    deviation = math.sqrt(sum(padded) - (padded[0] - padded[1]) ** 2 / enlarged) / enlarged
    half = measures.Z_95 * deviation
    return Measure(value, max(-1.0, min(value, centre - half)), min(1.0, max(value, centre + half)), count)


def calibration(sums: NDArray[np.float64]) -> Measure:
    """Expected calibration error, with a bootstrap interval from a fixed seed.

    The error is a sum over bins of |sum of gaps|, gap being right - confidence. A resample's sums of gaps
    are, for many examples, normal with the moments that `sums` holds: so no example need be kept, and the
    interval is the same however the examples were spread over workers.

    Args:
        sums: of measures.reliability_sums.
    """
    value = measures.calibration_error(measures.reliability(sums))
    counts, right, confidence, squares = sums.T
    total = counts.sum()
    gaps = right - confidence
    deviation = np.sqrt(squares)
    # Covariance of the sums: diag(squares) - gaps gaps' / total, as D (I - b u u')² D with u = gaps / D.
    scaled = np.divide(gaps, deviation, out=np.zeros_like(gaps), where=deviation > 0)
    norm = float(scaled @ scaled)
    shrink = (1 - math.sqrt(max(0.0, 1 - norm / total))) / norm if norm else 0.0
    noise = np.random.default_rng(0).standard_normal((_RESAMPLES, len(gaps)))
    drawn = gaps + (noise - shrink * np.outer(noise @ scaled, scaled)) * deviation
    errors = np.abs(drawn).sum(axis=1) / total
    low, high = np.quantile(errors, (0.025, 0.975)).tolist()
    # Resampling adds noise to every bin, which never makes the sum of distances smaller.
    return Measure(value, min(value, low), max(value, high), int(total))


def compare(version: str, fingerprint: str, tally: Tally) -> Baseline:
    """The baseline's figures, and what the candidate loses against it.

    Args:
        version: of the baseline.
        fingerprint: of its files.
        tally: with a paired model.
    """
    paired = tally.paired
    assert paired is not None
    counts = class_counts(tally.confusion)
    return Baseline(
        version=version,
        fingerprint=fingerprint,
        accuracy=overall_accuracy(paired.confusion),
        class_accuracy=class_accuracy(paired.confusion),
        accuracy_drop=drop(int(paired.lost.sum()), int(paired.won.sum()), tally.examples),
        class_accuracy_drop={
            number: drop(int(paired.lost[number]), int(paired.won[number]), count)
            for number, count in counts.items()
            if count
        },
    )


@dataclass(frozen=True)
class Classes:
    """What is known of the classes beside the answers.

    Attributes:
        names: by label; empty: numbers.
        absent: classes that no split has an example of: no gate is about them.
    """

    names: tuple[str, ...] = ()
    absent: frozenset[int] = frozenset()

    def where(self, number: int) -> str:
        """A class, as gates have it."""
        return f"class {self.names[number] if self.names else number}"


def judge(
    thresholds: Thresholds,
    tally: Tally,
    baseline: Baseline | None = None,
    robustness: tuple[Robustness, ...] = (),
    reported: Reported = Reported(),
    lite: Lite | None = None,
    classes: Classes = Classes(),
) -> tuple[Gate, ...]:
    """Every gate, in the order in which a person asks.

    Args:
        thresholds: the gates' settings.
        tally: the candidate's.
        baseline: the model in production, compared with the candidate.
        robustness: the candidate's accuracy on corrupted images.
        reported: metrics of the model function's own.
        lite: the LiteRT model next to the candidate.
        classes: their names, and which of them no split has.

    Raises:
        ValueError: for a gate on a metric that is not reported.
    """
    return (
        *_gates(thresholds, tally, baseline, robustness, classes),
        *_of_lite(thresholds, lite),
        *_of_metrics(thresholds, reported),
    )


def _of_lite(thresholds: Thresholds, lite: Lite | None) -> Iterator[Gate]:
    """What goes to devices is judged like what goes to the server, and compared with it."""
    if lite is None:
        return
    metric = "accuracy lost against the SavedModel"
    yield at_least("accuracy", LITE_FILE, "accuracy", lite.accuracy, thresholds.accuracy)
    yield at_most("accuracy_drop", LITE_FILE, metric, lite.accuracy_drop, thresholds.accuracy_drop)


def _of_metrics(thresholds: Thresholds, reported: Reported) -> Iterator[Gate]:
    for setting, bound, values in (
        ("metrics", AT_LEAST, thresholds.metrics),
        ("metrics_at_most", AT_MOST, thresholds.metrics_at_most),
    ):
        for name, threshold in (values or {}).items():
            if name not in reported.metrics:
                raise ValueError(
                    f"gates.{setting}.{name}: the model function reports no such metric; there are "
                    f"{', '.join(reported.metrics)}"
                )
            value = reported.metrics[name]
            # Not a number passes neither.
            passed = value >= threshold if bound == AT_LEAST else value <= threshold
            yield Gate(setting, VALIDATION, name, value, bound, threshold, passed, None, reported.examples)


def _gates(
    thresholds: Thresholds,
    tally: Tally,
    baseline: Baseline | None,
    robustness: tuple[Robustness, ...],
    classes: Classes,
) -> Iterator[Gate]:
    by_class = class_accuracy(tally.confusion)
    counts = {n: count for n, count in class_counts(tally.confusion).items() if n not in classes.absent}
    judged = [number for number, count in counts.items() if count >= max(1, thresholds.class_examples)]
    yield at_least("accuracy", OVERALL, "accuracy", overall_accuracy(tally.confusion), thresholds.accuracy)
    yield from _enough_examples(counts, thresholds.class_examples, classes)
    for number in judged:
        measure = by_class[number]
        where = classes.where(number)
        yield at_least("class_accuracy", where, "accuracy", measure, thresholds.class_accuracy)
    yield at_most(
        "calibration_error",
        OVERALL,
        "calibration error",
        calibration(tally.reliability),
        thresholds.calibration_error,
    )
    if baseline:
        metric = "accuracy lost against the baseline"
        yield at_most("accuracy_drop", OVERALL, metric, baseline.accuracy_drop, thresholds.accuracy_drop)
        for number in judged:
            lost = baseline.class_accuracy_drop[number]
            yield at_most(
                "class_accuracy_drop", classes.where(number), metric, lost, thresholds.class_accuracy_drop
            )
    if thresholds.robustness is not None:
        for corruption in dict.fromkeys(part.corruption for part in robustness):
            parts = [part.accuracy for part in robustness if part.corruption == corruption]
            yield at_least("robustness", corruption, "accuracy", _mean(parts), thresholds.robustness)


def _enough_examples(counts: dict[int, int], least: int, classes: Classes) -> Iterator[Gate]:
    """One gate for each class with too few examples; where all have enough, one for the smallest."""
    too_few = [number for number, count in counts.items() if count < least]
    smallest = min(counts, key=counts.__getitem__)
    for number in too_few or [smallest]:
        found = counts[number]
        yield Gate(
            "class_examples",
            classes.where(number),
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


def at_least(name: str, slice_name: str, metric: str, found: Measure, threshold: float) -> Gate:
    """A gate that refuses what is less."""
    return _gate(name, slice_name, metric, found, AT_LEAST, threshold, found.value >= threshold)


def at_most(name: str, slice_name: str, metric: str, found: Measure, threshold: float) -> Gate:
    """A gate that refuses what is more."""
    return _gate(name, slice_name, metric, found, AT_MOST, threshold, found.value <= threshold)


def _gate(
    name: str, slice_name: str, metric: str, found: Measure, bound: Bound, threshold: float, passed: bool
) -> Gate:
    interval = (found.low, found.high)
    return Gate(name, slice_name, metric, found.value, bound, threshold, passed, interval, found.examples)
