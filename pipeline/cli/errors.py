"""How commands fail: one line on standard error, and an exit code that says whose fault it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

REJECTED, BAD_INPUT, DRIFT, INTERRUPTED = 1, 2, 3, 130


def fail(message: object, code: int = BAD_INPUT) -> NoReturn:
    """End the command with one line on standard error."""
    click.echo(f"mnist: {message}", err=True)
    sys.exit(code)


# By module, so that no command imports what it does not use: an error comes from a module that is there.
_MENDABLE = {
    "components.image_example_gen.sources.idx": "IdxError",
    "pipeline.config": "ConfigError",
    "pipeline.datasets.catalogue": "FetchError",
}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn what a person can mend into one line and exit code 2; anything else is a fault of ours."""
    try:
        yield
    except OSError as error:
        fail(f"{error.filename or 'system'}: {error.strerror or error}")
    except Exception as error:
        if not isinstance(error, _mendable()):
            raise
        fail(error)


def _mendable() -> tuple[type[Exception], ...]:
    modules = ((sys.modules.get(module), name) for module, name in _MENDABLE.items())
    return tuple(getattr(module, name) for module, name in modules if module is not None)
