"""What the example configurations compile to is what was reviewed."""

from __future__ import annotations

import difflib

import pytest

from tests.unit.kubeflow import golden


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.NAMES)
def test_the_examples_compile_to_what_was_reviewed(name: str) -> None:
    kept, made = golden.path(name).read_text(), golden.compiled(name)
    difference = "\n".join(
        difflib.unified_diff(kept.splitlines(), made.splitlines(), "kept", "made", lineterm="")
    )
    assert kept == made, f"{difference}\nif this is meant: python -m tests.unit.kubeflow.golden"
