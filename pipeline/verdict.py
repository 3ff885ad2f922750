"""What the Evaluator found, read back from its artifact: accuracies, and the gates that failed."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import validation_result_pb2

from pipeline import evaluation
from trainer import features


@dataclass(frozen=True)
class FailedGate:
    """One threshold that was missed."""

    where: str  # "overall", or "class 3"
    metric: str
    value: float
    threshold: float

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"{self.metric} {self.where} is {self.value:.4f}, "
            f"{self.threshold - self.value:.4f} below the gate of {self.threshold:.4f}"
        )


@dataclass(frozen=True)
class Verdict:
    """The Evaluator's judgement of one model."""

    accuracy: float
    class_accuracy: dict[int, float]
    examples: int
    failed: tuple[FailedGate, ...]

    @property
    def blessed(self) -> bool:
        """Whether every gate was passed."""
        return not self.failed

    @property
    def weakest_class(self) -> int:
        """The class with the lowest accuracy."""
        return min(self.class_accuracy, key=self.class_accuracy.__getitem__)


def read(evaluation_uri: str) -> Verdict:
    """Read the verdict from the folder of a ModelEvaluation artifact."""
    result = tfma.load_eval_result(evaluation_uri)
    overall: dict[str, float] = {}
    class_accuracy: dict[int, float] = {}
    for key, metrics in ((s, _scalars(m)) for s, m in result.slicing_metrics):
        if not key:
            overall = metrics
        else:
            class_accuracy[int(dict(key)[features.LABEL])] = metrics[evaluation.ACCURACY]
    validation = tfma.load_validation_result(evaluation_uri)
    return Verdict(
        accuracy=overall[evaluation.ACCURACY],
        class_accuracy=class_accuracy,
        examples=int(overall[evaluation.EXAMPLE_COUNT]),
        failed=tuple(_failures(validation)),
    )


def _scalars(metrics: dict) -> dict[str, float]:
    """The scalar metrics of one slice; TFMA nests them by output and sub key, of which there is one."""
    (by_sub_key,) = metrics.values()
    (by_name,) = by_sub_key.values()
    return {name: value["doubleValue"] for name, value in by_name.items() if "doubleValue" in value}


def _failures(validation: validation_result_pb2.ValidationResult) -> list[FailedGate]:
    failed = []
    # The slice of everything has no key and comes first.
    by_class = sorted(
        validation.metric_validations_per_slice,
        key=lambda in_slice: [key.int64_value for key in in_slice.slice_key.single_slice_keys],
    )
    for in_slice in by_class:
        keys = in_slice.slice_key.single_slice_keys
        where = f"of class {keys[0].int64_value}" if keys else "overall"
        failed += [
            FailedGate(
                where,
                "accuracy" if failure.metric_key.name == evaluation.ACCURACY else failure.metric_key.name,
                failure.metric_value.double_value.value,
                failure.metric_threshold.value_threshold.lower_bound.value,
            )
            for failure in in_slice.failures
        ]
    return failed
