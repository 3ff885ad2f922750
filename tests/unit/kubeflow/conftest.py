"""Compiled pipelines for the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kubeflow.compile import Compiled, compile_pipeline
from kubeflow.settings import load

REPOSITORY = Path(__file__).parents[3]

Compile = Callable[..., Compiled]


@pytest.fixture(scope="session")
def compiled() -> Compile:
    """Compile the project's pipeline with `key=value` settings; the model stays in its artifact."""

    def compile_with(*settings: str, file: Path | None = None) -> Compiled:
        config, kubeflow = load(file, [*(() if file else ("push.to=artifact",)), *settings])
        return compile_pipeline(config, kubeflow)

    return compile_with
