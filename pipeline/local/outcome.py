"""What a run on this machine came to. Imports neither TensorFlow nor TFX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.shared.verdict import Verdict


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
