"""The project's own TFX components.

Artifact types are found here by name (`components.Images`), on first use: TFX takes seconds to
import, and the IDX reader below this package does without it.
"""

from __future__ import annotations

from typing import Any

_ARTIFACTS = ("ClassificationMetrics", "DataBlessing", "Images", "Metrics", "Report")


def __getattr__(name: str) -> Any:
    if name in _ARTIFACTS:
        from components import artifacts

        return getattr(artifacts, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
