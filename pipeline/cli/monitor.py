"""`mnist monitor`: the requests of a server compared with the data that its model was trained on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from components.shared import files
from pipeline import product
from pipeline.cli.options import config_of, of_past_runs
from pipeline.cli.tables import Column, print_table
from pipeline.config import PipelineConfig
from pipeline.errors import DRIFT
from pipeline.history.run_id import new_run_id
from pipeline.runtime import environment
from pipeline.runtime import logs as log_files

if TYPE_CHECKING:
    from pipeline.monitor.drift import Findings

_LIMIT = click.FloatRange(0, 1)


@click.command()
@click.option(
    "--logs",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help=f"The folder that `{product.NAME} serve --log-requests` wrote.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the model's versions, or of one. [default: the newest that was pushed]",
)
@click.option("--any-version", is_flag=True, help="Take requests to other versions of the model too.")
@click.option(
    "--max-image-distance", type=_LIMIT, default=0.1, show_default=True, help="Limit for an image fact."
)
@click.option(
    "--max-class-distance",
    type=_LIMIT,
    default=0.1,
    show_default=True,
    help="Limit for the predicted classes.",
)
@click.option(
    "--max-confidence-distance",
    type=_LIMIT,
    default=0.1,
    show_default=True,
    help="Limit for the confidence.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write it as JSON."
)
@click.option(
    "--html", "html_file", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a page."
)
@of_past_runs
def monitor(
    logs: Path,
    model: Path | None,
    any_version: bool,
    max_image_distance: float,
    max_class_distance: float,
    max_confidence_distance: float,
    json_file: Path | None,
    html_file: Path | None,
    root: str | None,
    settings: tuple[str, ...],
) -> None:
    """Compare logged requests with what the model was trained on.

    Limits are distances of two distributions, 0 to 1, beyond what chance explains.

    Exit code: 0 no drift, 2 bad input, 3 drift.
    """
    config = config_of(root, settings)
    limits = {
        "max_image_distance": max_image_distance,
        "max_class_distance": max_class_distance,
        "max_confidence_distance": max_confidence_distance,
    }
    found = _findings(config, logs, model, any_version, limits)
    if json_file:
        files.write_text(json_file, json.dumps(found.as_json(), indent=2) + "\n")
    if html_file:
        with environment.scratch_environment(config.scratch_dir("monitor")):
            from pipeline.monitor import page  # matplotlib, in an environment of its own

            files.write_text(html_file, page.render(found))
    _print(found)
    sys.exit(DRIFT if found.drifted else 0)


def _findings(
    config: PipelineConfig, logs: Path, model: Path | None, any_version: bool, limits: dict[str, float]
) -> Findings:
    log = config.logs_dir / f"monitor-{new_run_id()}.log"
    with log_files.redirected(log):
        with environment.heavy_imports():  # TensorFlow: not for --help
            from pipeline.monitor import drift
        expected = drift.expected(model or config.serving_dir)
        observed = drift.observe(logs, expected, any_version)
        return drift.compare(expected, observed, drift.Limits(**limits))


def _print(found: Findings) -> None:
    columns = [
        Column("fact"),
        Column("training", right=True, spare=1),
        Column("requests", right=True, spare=2),
        Column("distance", right=True),
        Column("chance", right=True, spare=3),
        Column("limit", right=True),
        Column(""),
    ]
    rows = [
        [
            each.fact.replace("_", " ")
            + ("" if each.about is None else f" ({found.expected.names[each.about]})"),
            *(f"{value:.3f}" for value in (each.trained, each.requested, each.distance, each.chance)),
            f"{each.limit:g}",
            "[bold red]drift[/]" if each.drifted else "",
        ]
        for each in found.comparisons
    ]
    print_table(columns, rows)
    seen = found.observed
    verdict = "drift" if found.drifted else "no drift"
    click.echo(
        f"\n{verdict}: {seen.images:,} images in {seen.requests:,} requests to version "
        f"{found.expected.version} of {found.expected.model}, compared with its training data"
    )
    for count, what in (
        (seen.elsewhere, "requests to other models or versions were left out"),
        (seen.damage.records, "damaged records were skipped"),
        (seen.damage.files, "files break off: what follows was skipped"),
    ):
        if count:
            click.echo(f"{product.NAME}: warning: {count} {what}", err=True)
