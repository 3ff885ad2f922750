"""Options of the commands that look at past runs: where these lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pipeline.config import PipelineConfig, with_settings

F = TypeVar("F", bound=Callable[..., Any])


def of_past_runs(command: F) -> F:
    """Add --root and --set, by which a run was told where to keep what it made."""
    root = click.option("--root", help="The --root of the runs. [default: var]")
    settings = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="A setting that the runs were given, e.g. metadata.mysql_host=…",
    )
    return root(settings(command))


def config_of(root: str | None, settings: tuple[str, ...]) -> PipelineConfig:
    """The config that the options describe."""
    given = [f"root={root}"] if root is not None else []
    return with_settings(PipelineConfig(), [*given, *settings])
