"""The page of a run that ended before its report: it says what was pushed, and what was not."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from pipeline.config import PipelineConfig, with_settings
from pipeline.history import report_page
from pipeline.history.records import Artifact, HistoryError, Node, Run


def run_of(node_id: str, state: str, earlier: tuple[Node, ...] = ()) -> Run:
    began = datetime(2026, 1, 2, 3, 4, 5)
    node = Node(node_id, 2, state, began, 1.5, {"text": "<b>"}, (), ())
    return Run("20260102-030405", began, (*earlier, node))


@pytest.mark.parametrize("pushed", [False, True])
def test_it_says_whether_a_model_was_pushed(pushed: bool, tmp_path: Path) -> None:
    config = with_settings(PipelineConfig(), [f"root={tmp_path}"])
    model = Artifact("pushed_model", 1, "PushedModel", "/m", {"pushed": 1, "pushed_version": "77"})
    pusher = Node("Pusher", 1, "done", datetime(2026, 1, 2), 0.1, {}, (), (model,))
    run = run_of("ReportGen", "failed", (pusher,) if pushed else ())
    page = report_page.write(config, run, "ReportGen: <oops>.")
    told = page.read_text()
    assert "Failed in ReportGen" in told
    assert "ReportGen: &lt;oops&gt;." in told
    assert ("as version 77" in told) is pushed
    assert ("Nothing was pushed" in told) is not pushed
    assert "&lt;b&gt;" in told
    assert report_page.write(config, run) == page
    assert page.read_text() == told, "the reason is kept"


def test_a_rollback_has_no_report(tmp_path: Path) -> None:
    config = with_settings(PipelineConfig(), [f"root={tmp_path}"])
    with pytest.raises(HistoryError, match="has no report"):
        report_page.write(config, run_of("Rollback", "done"))
