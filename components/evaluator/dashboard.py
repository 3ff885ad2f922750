"""The verdict's figures as the artifacts that Kubeflow's page shows, and compares between runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfx.types.artifact import Artifact
from tfx.utils import io_utils

from components.shared.verdict import Verdict

CONFUSION_PROPERTY = "confusionMatrix"  # Kubeflow's name
METRICS_FILE, CONFUSION_FILE = "metrics.json", "confusion.json"


def fill_metrics(artifact: Artifact, verdict: Verdict) -> None:
    """One number a property: Kubeflow makes a row of each."""
    figures = {
        "accuracy": verdict.accuracy.value,
        "calibration_error": verdict.calibration_error.value,
        "log_loss": verdict.log_loss,
        "test_examples": float(verdict.accuracy.examples),
        "gates_failed": float(len(verdict.failed)),
    }
    figures |= {f"accuracy_class_{c}": share.value for c, share in verdict.class_accuracy.items()}
    if verdict.baseline:
        figures["accuracy_drop"] = verdict.baseline.accuracy_drop.value
    for part in verdict.robustness:
        figures[f"accuracy_{part.corruption}_{part.severity}"] = part.accuracy.value
    for name, value in figures.items():
        artifact.set_float_custom_property(name, value)
    _write(artifact, METRICS_FILE, figures)


def fill_confusion(artifact: Artifact, verdict: Verdict) -> None:
    """The confusion matrix in the form of KFP's ClassificationMetrics: rows are true classes."""
    matrix = {
        "annotationSpecs": [{"displayName": str(c)} for c in range(len(verdict.confusion))],
        "rows": [{"row": [float(count) for count in row]} for row in verdict.confusion],
    }
    artifact.set_json_value_custom_property(CONFUSION_PROPERTY, matrix)
    _write(artifact, CONFUSION_FILE, matrix)


def _write(artifact: Artifact, name: str, content: dict[str, Any]) -> None:
    """The page reads properties alone; but an artifact without a file counts as deleted."""
    io_utils.write_string_file(str(Path(artifact.uri, name)), json.dumps(content))
