"""What is wrong with a data set, from its facts alone: one Anomaly for each finding.

| name | what it means | its share |
|---|---|---|
| `<split>.missing_class` | no example of a class that others have | of the classes |
| `train.imbalance` | a class is many times as frequent as the median class | its part of the examples |
| `<split>.skew.<fact>` | the fact is distributed otherwise than in `train` | the distance |
| `<split>.drift.<fact>` | it is distributed otherwise than in the previous data | the distance |
| `<split>.agreement` | labels do not belong to images as they do elsewhere | of right answers lost |
| `<split>.leakage` | images are in `train` too | of the split's examples |

A fact is `labels` or one of image_facts.fact_names. Every threshold is for what sampling noise does not
explain: see `distance`. Names of ExampleValidator's anomalies are `<split>.schema.<feature>`.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from components.shared import agreement, distance
from components.shared.dataset_facts import DatasetFacts
from components.shared.image_facts import SplitFacts, median
from trainer import features

# A class is missing, not just absent by chance, where chance would leave it out in one of so many splits.
_UNLIKELY = 1e-6
_MISSING_CLASS = "missing_class"
TRAIN_MISSING_CLASS, TEST_MISSING_CLASS = (
    f"{split}.{_MISSING_CLASS}" for split in (features.TRAIN, features.TEST)
)


@dataclass(frozen=True)
class Anomaly:
    """Something wrong with the data.

    Attributes:
        name: what `data_gate.allow` takes.
        share: how much of the data, or of the distribution, it concerns, 0 … 1.
        text: what it is, for a person.
    """

    name: str
    share: float
    text: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.name} ({self.share:.1%}): {self.text}"


@dataclass(frozen=True)
class Thresholds:
    """How much is too much, beyond what chance explains.

    Attributes:
        label_distance: distance of two label distributions.
        image_distance: distance of two distributions of an image fact.
        agreement_lost: share of right answers that labels lose from split to split.
        leakage: share of a split's images that are in `train` too.
        imbalance: times that a class is as frequent as the median class.
    """

    label_distance: float
    image_distance: float
    agreement_lost: float
    leakage: float
    imbalance: float


def find(now: DatasetFacts, before: DatasetFacts | None, thresholds: Thresholds) -> list[Anomaly]:
    """All anomalies of a data set, given the one before it where there is one."""
    return [
        *_missing_classes(now),
        *_imbalance(now.splits[features.TRAIN], thresholds),
        *_skew(now, thresholds),
        *(_drift(now, before, thresholds) if before else ()),
        *_disagreement(now, thresholds),
        *_leakage(now, thresholds),
    ]


def unallowed(anomalies: Iterable[Anomaly], allowed: Iterable[str]) -> list[Anomaly]:
    """Those that no allowed name or pattern (`test.skew.*`) covers."""
    patterns = list(allowed)
    return [a for a in anomalies if not any(fnmatch.fnmatchcase(a.name, pattern) for pattern in patterns)]


def _missing_classes(now: DatasetFacts) -> Iterator[Anomaly]:
    counts = np.array([split.labels for split in now.splits.values()])
    totals = counts.sum(axis=1)
    for number, (name, split) in enumerate(now.splits.items()):
        others = np.delete(counts, number, axis=0).sum(axis=0)
        expected = others / max(others.sum(), 1)
        surprising = (1 - expected) ** totals[number] < _UNLIKELY
        missing = np.flatnonzero((counts[number] == 0) & surprising)
        if len(missing):
            which = ", ".join(map(str, missing))
            elsewhere = f"the other splits have {int(others[missing].sum()):,}"
            yield Anomaly(
                f"{name}.{_MISSING_CLASS}",
                len(missing) / len(split.labels),
                f"no example of class {which} among {split.examples:,}; {elsewhere}",
            )


def _imbalance(train: SplitFacts, thresholds: Thresholds) -> Iterator[Anomaly]:
    counts = np.array(train.labels)
    most, median = int(counts.argmax()), max(float(np.median(counts)), 1.0)
    # A Poisson count is above its mean by three standard deviations once in a thousand times.
    surely = counts[most] - 3 * math.sqrt(counts[most])
    if surely > thresholds.imbalance * median:
        yield Anomaly(
            f"{features.TRAIN}.imbalance",
            float(counts[most] / counts.sum()),
            f"class {most} has {counts[most]:,} examples, {counts[most] / median:.1f} times those of the "
            f"median class; the limit is {thresholds.imbalance:g} times",
        )


def _skew(now: DatasetFacts, thresholds: Thresholds) -> Iterator[Anomaly]:
    train = now.splits[features.TRAIN]
    for name, split in now.splits.items():
        if name != features.TRAIN:
            yield from _compare(f"{name}.skew", "train", train, split, thresholds)


def _drift(now: DatasetFacts, before: DatasetFacts, thresholds: Thresholds) -> Iterator[Anomaly]:
    for name, split in now.splits.items():
        if name in before.splits:
            yield from _compare(
                f"{name}.drift", "the previous data", before.splits[name], split, thresholds
            )
    now_right, before_right = (_right_within(facts, features.TRAIN) for facts in (now, before))
    if now_right and before_right:
        lost = distance.of_shares(*before_right, *now_right)
        if lost.excess > thresholds.agreement_lost:
            yield Anomaly(
                f"{features.TRAIN}.drift.agreement",
                lost.value,
                f"class means tell {now_right[0]:.0%} of the images right, {before_right[0]:.0%} in the "
                "previous data: labels may be shuffled",
            )


def _compare(
    name: str, other: str, reference: SplitFacts, split: SplitFacts, thresholds: Thresholds
) -> Iterator[Anomaly]:
    if not sum(reference.labels) or not sum(split.labels):
        return
    labels, worst = distance.of_labels(reference.labels, split.labels)
    if labels.excess > thresholds.label_distance:
        before, now = (_share_of(facts, worst) for facts in (reference, split))
        yield Anomaly(
            f"{name}.labels",
            labels.value,
            f"class {worst} is {now:.1%} of the examples, {before:.1%} in {other}; "
            + _limit(labels, thresholds.label_distance),
        )
    for fact in reference.images:
        # Facts of before there were photos lack some.
        if fact not in split.images or not sum(reference.images[fact]) or not sum(split.images[fact]):
            continue
        apart = distance.of_histograms(reference.images[fact], split.images[fact])
        if apart.excess > thresholds.image_distance:
            before, now = (median(facts.images[fact]) for facts in (reference, split))
            yield Anomaly(
                f"{name}.{fact}",
                apart.value,
                f"{fact.replace('_', ' ')} has the median {now:.3f}, {before:.3f} in {other}; distance "
                + _limit(apart, thresholds.image_distance),
            )


def _limit(apart: distance.Distance, threshold: float) -> str:
    return f"{apart.value:.3f}, of which chance explains {apart.noise:.3f}, over the limit of {threshold:g}"


def _share_of(facts: SplitFacts, label: int) -> float:
    return facts.labels[label] / sum(facts.labels) if label < len(facts.labels) else 0.0


def _right_within(facts: DatasetFacts, split: str) -> tuple[float, int] | None:
    """Share of right answers within a split, and of how many."""
    right = facts.agreements.get(split, {}).get(split)
    return None if right is None else (right, min(sum(facts.splits[split].labels), agreement.SAMPLE))


def _disagreement(now: DatasetFacts, thresholds: Thresholds) -> Iterator[Anomaly]:
    # Whichever of two splits is the good one: what its class means say of the other is worse than what they
    # say of itself.
    for source, asked in ((features.TRAIN, features.TEST), (features.TEST, features.TRAIN)):
        within, beyond = _right_within(now, source), now.agreements.get(source, {}).get(asked)
        if within is None or beyond is None:
            continue
        count = min(sum(now.splits[asked].labels), agreement.SAMPLE)
        lost = distance.of_shares(*within, beyond, count)
        if lost.excess > thresholds.agreement_lost:
            yield Anomaly(
                f"{asked}.agreement",
                lost.value,
                f"class means of {source} tell {within[0]:.0%} of its own images right, but {beyond:.0%} "
                f"of {asked}'s: labels of either may be shuffled, or images damaged",
            )


def _leakage(now: DatasetFacts, thresholds: Thresholds) -> Iterator[Anomaly]:
    # Validation is cut from the same files as train; what it shares with it harms early stopping alone.
    count, examples = now.leaked.get(features.TEST, 0), now.splits[features.TEST].examples
    if examples and count / examples > thresholds.leakage:
        yield Anomaly(
            f"{features.TEST}.leakage",
            count / examples,
            f"{count:,} of {examples:,} images are in {features.TRAIN} too, by content hash; the limit is "
            f"{thresholds.leakage:.1%}",
        )
