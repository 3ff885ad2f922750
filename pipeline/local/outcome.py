"""What a run on this machine came to. Imports neither TensorFlow nor TFX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.shared.verdict import Verdict
from pipeline.history import verdict
from pipeline.history.records import Run
from pipeline.nodes import NodeId, NodeState, Output


@dataclass(frozen=True)
class Outcome:
    """What a run came to: an error, or a verdict and perhaps a pushed model."""

    error: str | None = None
    verdict: Verdict | None = None
    not_servable: str | None = None  # why a server did not answer with the model as it should
    pushed: Path | None = None  # the version folder
    all_cached: bool = False
    report: Path | None = None  # the page about the run


@dataclass(frozen=True)
class Tuned:
    """What a search came to: an error, or the best recipe."""

    error: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    accuracy: float = 0.0  # on the validation split
    trials: int = 0


def of_run(run: Run) -> Outcome:
    """What a run came to whose nodes all succeeded, without its page.

    Raises:
        VerdictError, OSError: where the Evaluator's file cannot be read.
    """
    outputs = {(node.id, artifact.key): artifact for node in run.nodes for artifact in node.outputs}
    pushed = outputs[NodeId.PUSHER, Output.PUSHED_MODEL].properties
    served = outputs[NodeId.SERVING_VALIDATOR, Output.BLESSING].properties
    return Outcome(
        verdict=verdict.read(outputs[NodeId.EVALUATOR, Output.EVALUATION].uri),
        not_servable=None if served["blessed"] else served["reason"],
        pushed=Path(pushed["pushed_destination"]) if pushed["pushed"] else None,
        all_cached=all(node.state == NodeState.CACHED for node in run.nodes),
    )


def unexpected(error: Exception) -> str:
    """One line about a fault outside of the nodes; the log has the rest."""
    return f"the run failed: {type(error).__name__}: {error}".splitlines()[0]
