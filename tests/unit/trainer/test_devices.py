"""TF_CONFIG: who trains, who writes, who has nothing to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainer import devices, workers

WORKERS = {"worker": ["a:1", "b:1"]}


@pytest.mark.parametrize(
    ("cluster", "task", "chief", "count"),
    [
        (None, None, True, 1),
        (WORKERS, {"type": "worker", "index": 0}, True, 2),
        (WORKERS, {"type": "worker", "index": 1}, False, 2),
        ({"chief": ["c:1"], **WORKERS}, {"type": "chief", "index": 0}, True, 3),
        ({"chief": ["c:1"], **WORKERS}, {"type": "worker", "index": 0}, False, 3),
        ({"master": ["m:1"], **WORKERS}, {"type": "master", "index": 0}, True, 3),
        ({"master": ["m:1"], **WORKERS}, {"type": "worker", "index": 0}, False, 3),
        ({"ps": ["p:1"], **WORKERS}, {"type": "ps", "index": 0}, False, 2),
        (WORKERS, {"type": "evaluator", "index": 0}, False, 2),
        (None, {"type": "evaluator", "index": 0}, False, 1),
    ],
)
def test_one_process_is_the_chief(
    monkeypatch: pytest.MonkeyPatch, cluster: Any, task: Any, chief: bool, count: int
) -> None:
    given = {"cluster": cluster, "task": task}
    config = {name: value for name, value in given.items() if value}
    monkeypatch.setenv(workers.TF_CONFIG, json.dumps(config))
    assert devices.is_chief() == chief
    assert devices.worker_count() == count


@pytest.mark.parametrize("role", ["evaluator", "ps"])
def test_a_role_without_work_is_refused(monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    config = {"cluster": WORKERS, "task": {"type": role, "index": 0}}
    monkeypatch.setenv(workers.TF_CONFIG, json.dumps(config))
    with pytest.raises(ValueError, match=f"TF_CONFIG: a task of type '{role}' has nothing to do here"):
        devices.build_strategy()
