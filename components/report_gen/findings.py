"""The figures of the page, from the evidence; what is said in words stands in the template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.report_gen.evidence import Evidence
from components.shared import measures

_PAIRS = 8


@dataclass(frozen=True)
class OfClass:
    """How the model does on the test images of one class.

    Attributes:
        number: the class.
        count: its test images.
        recall: the share of them that is recognised: the accuracy on the class.
        precision: the share that is right of what was taken for it.
        baseline: accuracy of the model in production on the class, None where there is none.
    """

    number: int
    count: int
    recall: measures.Measure
    precision: measures.Measure
    baseline: float | None = None


@dataclass(frozen=True)
class Findings:
    """What the answers on the test split come to.

    Attributes:
        accuracy: overall.
        errors: how many test images were classified wrongly.
        confusion: int64 [C, C], rows are true classes.
        classes: one for each class.
        bins: for the reliability diagram.
        calibration_error: expected calibration error.
        log_loss: mean cross entropy, in nats.
        confident: mistakes in the bin of the highest confidence.
        pairs: the commonest confusions: true class, predicted class, count.
    """

    accuracy: measures.Measure
    errors: int
    confusion: NDArray[np.int64]
    classes: tuple[OfClass, ...]
    bins: tuple[measures.Bin, ...]
    calibration_error: float
    log_loss: float
    confident: int
    pairs: tuple[tuple[int, int, int], ...]

    @property
    def weakest(self) -> OfClass:
        """The class with the lowest accuracy, of those that there are test images of."""
        return min((c for c in self.classes if c.count), key=lambda c: c.recall.value)


def find(evidence: Evidence) -> Findings:
    """All figures, which are the verdict's or follow from its confusion matrix."""
    verdict = evidence.verdict
    counts = np.array(verdict.confusion, np.int64)
    surest = verdict.reliability[-1].accuracy
    return Findings(
        accuracy=verdict.accuracy,
        errors=int(counts.sum() - counts.trace()),
        confusion=counts,
        classes=tuple(
            _of_class(counts, number, _in_production(evidence, number)) for number in range(len(counts))
        ),
        bins=verdict.reliability,
        calibration_error=verdict.calibration_error.value,
        log_loss=verdict.log_loss,
        confident=round(surest.examples * (1 - surest.value)) if verdict.reliability[-1].high == 1 else 0,
        pairs=_commonest_confusions(counts),
    )


def summary(evidence: Evidence, findings: Findings) -> dict[str, Any]:
    """The figures for programs: `summary.json`, which `mnist runs` reads."""
    return {
        "accuracy": findings.accuracy.value,
        "accuracy_interval": [findings.accuracy.low, findings.accuracy.high],
        "class_names": list(evidence.data.class_names),
        "class_accuracy": {str(c.number): c.recall.value for c in findings.classes if c.count},
        "calibration_error": findings.calibration_error,
        "log_loss": findings.log_loss,
        "errors": findings.errors,
        "test_examples": findings.accuracy.examples,
        "blessed": evidence.blessed,
        "servable": evidence.servable,
        "pushed_version": evidence.pushed_version,
        "train_seconds": evidence.training.get("train_seconds"),
        "images_per_s": evidence.training.get("images_per_s"),
        "validation_accuracy": evidence.training.get("validation_accuracy"),
        "validation_metrics": evidence.training.get("validation_metrics"),
    }


def _in_production(evidence: Evidence, number: int) -> float | None:
    """Accuracy on a class of the model in production, as the Evaluator found it."""
    baseline = evidence.verdict.baseline
    measure = baseline.class_accuracy.get(number) if baseline else None
    return measure.value if measure else None


def _of_class(counts: NDArray[np.int64], number: int, baseline: float | None) -> OfClass:
    right = int(counts[number, number])
    return OfClass(
        number,
        count=int(counts[number].sum()),
        recall=measures.wilson(right, int(counts[number].sum())),
        precision=measures.wilson(right, int(counts[:, number].sum())),
        baseline=baseline,
    )


def _commonest_confusions(counts: NDArray[np.int64]) -> tuple[tuple[int, int, int], ...]:
    pairs = [
        (int(label), int(predicted), int(counts[label, predicted]))
        for label, predicted in np.argwhere(counts > 0)
        if label != predicted
    ]
    return tuple(sorted(pairs, key=lambda pair: -pair[2])[:_PAIRS])
