"""Names of runs."""

from __future__ import annotations

from datetime import datetime


def new_run_id() -> str:
    """When the run began, to the microsecond, in the form that BeamDagRunner uses."""
    return datetime.now().strftime("%Y%m%d-%H%M%S.%f")
