"""The fixtures of the room's unit tests."""

from __future__ import annotations

from tests.unit.kubeflow.conftest import compiled

__all__ = ["compiled"]
