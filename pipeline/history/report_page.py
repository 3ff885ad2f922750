"""The page of one run: ReportGen's, and what only ML Metadata knows: seconds per node, and lineage.

ReportGen's artifact stays as it was written; several cached runs share it, and each has a page of its own.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from components.shared import files, html
from pipeline import product
from pipeline.config import PipelineConfig
from pipeline.history.records import HistoryError, Run
from pipeline.nodes import NodeId, NodeState

# Places that components/report_gen/page.html.j2 keeps free.
RUN_MARK, NAME_MARK = "<!-- run -->", "<!-- run-name -->"


def write(config: PipelineConfig, run: Run, reason: str = "") -> Path:
    """Write the page of a run below `reports_dir`, whole or not at all.

    Args:
        config: where the run took place.
        run: which one. One that ended before ReportGen gets a page of what there is.
        reason: why it ended there; such a page that was written with its reason is kept.

    Raises:
        HistoryError: where the run was a rollback or a search, which have nothing to report.
    """
    page = config.reports_dir / f"{run.id}.html"
    if run.report is not None:
        text = run.report.read_text(encoding="utf-8")
        text = text.replace(RUN_MARK, section(config, run)).replace(NAME_MARK, f" · run {run.id}")
    elif run.node(NodeId.TUNER) or run.node(NodeId.ROLLBACK) or not run.nodes:
        raise HistoryError(f"run {run.id} has no report: it ended as {run.verdict!r}")
    elif page.is_file() and not reason:
        return page
    else:
        text = _unfinished(config, run, reason)
    files.write_text(page, text)
    return page


def section(config: PipelineConfig, run: Run) -> str:
    """The part of the page about the run itself, as HTML."""
    executed = [node.seconds for node in run.nodes if node.state != NodeState.CACHED]
    return html.template(__package__, "templates/run_section.html.j2").render(
        run=run,
        pipeline=config.name,
        program=f"{product.DISTRIBUTION} {product.VERSION}",
        longest=max(executed, default=0.0) or 1.0,
    )


def _unfinished(config: PipelineConfig, run: Run, reason: str) -> str:
    return html.template(__package__, "templates/unfinished_run.html.j2").render(
        run=run,
        pipeline=config.name,
        reason=reason,
        section=Markup(section(config, run)),
        style=html.style(),
    )
