"""`mnist run`: what its options say."""

from __future__ import annotations

import pytest

from pipeline.cli.run import nodes_to_rerun
from pipeline.errors import UserError


def test_nodes_to_rerun_come_in_lists_and_again_and_again() -> None:
    assert nodes_to_rerun(["Trainer,Evaluator", "Pusher"]) == {"Trainer", "Evaluator", "Pusher"}
    assert nodes_to_rerun(()) == set()


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Trianer", "did you mean Trainer?"), ("x", "there are BaselineModel, CuratedSchema")],
)
def test_a_node_that_there_is_not_is_refused(name: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        nodes_to_rerun([f"Evaluator,{name}"])
    assert f"--rerun: there is no node {name!r}: {hint}" in str(caught.value)
