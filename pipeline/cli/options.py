"""Options of the commands that look at past runs: where these lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli.errors import fail, one_line_errors
from pipeline.runtime.environment import heavy_imports

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig

F = TypeVar("F", bound=Callable[..., Any])


def where(command: F) -> F:
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
    from pipeline import config

    given = [f"root={root}"] if root is not None else []
    return config.with_settings(config.PipelineConfig(), [*given, *settings])


@contextmanager
def readable_history() -> Iterator[None]:
    """Turn a run that is not there into one line and exit code 2, as other bad input."""
    with one_line_errors():
        with heavy_imports():
            from pipeline.history.records import HistoryError

        try:
            yield
        except HistoryError as error:
            fail(error)
