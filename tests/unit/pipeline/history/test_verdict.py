"""A gate that was not passed, in a line for a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.shared.verdict import AT_LEAST, AT_MOST, Gate, VerdictError
from pipeline.history import verdict


@pytest.mark.parametrize(
    ("gate", "line"),
    [
        (
            Gate("accuracy", "overall", "accuracy", 0.8, AT_LEAST, 0.9, False, (0.79, 0.81), 10_000),
            "accuracy overall is 0.8000 (0.7900 to 0.8100), 0.1000 below the gate of 0.9000",
        ),
        (
            Gate("class_accuracy", "class 1", "accuracy", 0.5, AT_LEAST, 0.6, False, None, 2),
            "accuracy of class 1 is 0.5000, 0.1000 below the gate of 0.6000",
        ),
        (
            Gate("calibration_error", "overall", "calibration error", 0.2, AT_MOST, 0.1, False, None, 9),
            "calibration error overall is 0.2000, 0.1000 above the gate of 0.1000",
        ),
        (
            Gate("class_examples", "class 8", "test examples", 3.0, AT_LEAST, 10.0, False, None, 3),
            "test examples of class 8: 3, too few: at least 10 are needed to judge it",
        ),
    ],
)
def test_lines(gate: Gate, line: str) -> None:
    assert verdict.line(gate) == line


def test_a_file_that_is_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text("{")
    with pytest.raises(VerdictError, match="no verdict"):
        verdict.read(str(tmp_path))
