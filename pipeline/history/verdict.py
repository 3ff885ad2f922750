"""The Evaluator's verdict, read back from its artifact, and each gate in a line for a person."""

from __future__ import annotations

from pathlib import Path

from components.shared import verdict
from components.shared.verdict import AT_LEAST, Gate, Verdict


def read(evaluation_uri: str) -> Verdict:
    """Read the verdict from the folder of a ModelEvaluation artifact.

    Raises:
        verdict.VerdictError: for a file that is none.
        OSError: where there is no such file.
    """
    return verdict.from_json(Path(evaluation_uri, verdict.VERDICT_FILE).read_text())


def line(gate: Gate) -> str:
    """A gate that was not passed, with by how much."""
    of = "" if gate.slice_name == verdict.OVERALL else "of "
    what = f"{gate.metric} {of}{gate.slice_name}"
    if gate.name == "class_examples":
        return f"{what}: {gate.value:.0f}, too few: at least {gate.threshold:.0f} are needed to judge it"
    missing, side = (
        (gate.threshold - gate.value, "below the gate of")
        if gate.bound == AT_LEAST
        else (gate.value - gate.threshold, "above the gate of")
    )
    found = f"{what} is {gate.value:.4f}"
    if gate.interval:
        found += f" ({gate.interval[0]:.4f} to {gate.interval[1]:.4f})"
    return f"{found}, {missing:.4f} {side} {gate.threshold:.4f}"
