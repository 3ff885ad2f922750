"""How commands fail: one line on standard error, and an exit code that says whose fault it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

REJECTED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def fail(message: object, code: int = BAD_INPUT) -> NoReturn:
    """End the command with one line on standard error."""
    click.echo(f"mnist: {message}", err=True)
    sys.exit(code)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person can mend into one line and exit code 2; anything else is a fault of ours."""
    from components.idx_example_gen.idx import IdxError
    from pipeline.config import ConfigError
    from pipeline.datasets import FetchError

    try:
        yield
    except (ConfigError, FetchError, IdxError) as error:
        fail(error)
    except OSError as error:
        fail(f"{error.filename or 'system'}: {error.strerror or error}")
