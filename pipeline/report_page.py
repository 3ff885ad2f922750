"""The page of one run: ReportGen's, and what only ML Metadata knows: seconds per node, and lineage.

ReportGen's artifact stays as it was written; several cached runs share it, and each has a page of its own.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

import jinja2

from pipeline.config import PipelineConfig
from pipeline.history import CACHED, HistoryError, Run

# Places that components/report_gen/page.html.j2 keeps free.
RUN_MARK, NAME_MARK = "<!-- run -->", "<!-- run-name -->"


def write(config: PipelineConfig, run: Run) -> Path:
    """Write the page of a run below `reports_dir`, whole or not at all.

    Raises:
        HistoryError: where the run came to no report.
    """
    if run.report is None:
        raise HistoryError(f"run {run.id} has no report: it ended as {run.verdict!r}")
    html = run.report.read_text(encoding="utf-8")
    html = html.replace(RUN_MARK, section(config, run)).replace(NAME_MARK, f" · run {run.id}")
    page = config.reports_dir / f"{run.id}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    unfinished = page.with_name(f".{page.name}.{os.getpid()}")
    try:
        unfinished.write_text(html, encoding="utf-8")
        unfinished.replace(page)
    finally:
        unfinished.unlink(missing_ok=True)
    return page


def section(config: PipelineConfig, run: Run) -> str:
    """The part of the page about the run itself, as HTML."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = resources.files(__package__).joinpath("run_section.html.j2").read_text(encoding="utf-8")
    executed = [node.seconds for node in run.nodes if node.state != CACHED]
    return environment.from_string(template).render(
        run=run, pipeline=config.name, longest=max(executed, default=0.0) or 1.0
    )
