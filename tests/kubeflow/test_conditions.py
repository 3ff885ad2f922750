"""Conditions as TFX compiles them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeflow.conditions import ConditionError, holds

MESSAGE = {
    "inputs": {
        "artifacts": {
            "b": {"artifacts": [{"uri": "minio://x/y", "metadata": {"blessed": 1.0, "n": "a && b"}}]}
        }
    }
}
BLESSED = "inputs.artifacts['b'].artifacts[0].metadata['blessed']"


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (f"({BLESSED} == 1.0)", True),
        (f"!({BLESSED} == 1.0)", False),
        (f"({BLESSED} > 0.5) && ({BLESSED} < 2.0)", True),
        (f"(({BLESSED} == 0.0) || ({BLESSED} == 1.0))", True),
        ("(inputs.artifacts['b'].artifacts[0].uri == 'minio://x/y')", True),
        ("(inputs.artifacts['b'].artifacts[0].metadata['n'] == 'a && b')", True),
        ("((inputs.artifacts['b'].artifacts[0].uri + '!') == 'minio://x/y!')", True),
    ],
)
def test_conditions(condition: str, expected: bool) -> None:
    assert holds(condition, MESSAGE) is expected


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "1.0",
        "inputs.artifacts['c'] == 1.0",
        "__import__('os')",
        "inputs.artifacts == ",
        "size(inputs) == 1",
    ],
)
def test_anything_else_is_an_error(condition: str) -> None:
    with pytest.raises(ConditionError):
        holds(condition, MESSAGE)


@given(st.text(max_size=40))
def test_a_condition_gives_a_bool_or_a_condition_error(condition: str) -> None:
    with contextlib.suppress(ConditionError):
        assert isinstance(holds(condition, MESSAGE), bool)
