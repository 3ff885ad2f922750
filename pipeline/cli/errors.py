"""Errors of the commands below pipeline/commands."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NoReturn

from pipeline.errors import BAD_INPUT, INTERRUPTED, REJECTED, UserError

__all__ = ["BAD_INPUT", "INTERRUPTED", "REJECTED", "fail", "one_line_errors"]


def fail(message: object, code: int = BAD_INPUT) -> NoReturn:
    """End the command with one line."""
    error = UserError(str(message))
    error.exit_code = code
    raise error from None


def one_line_errors() -> AbstractContextManager[None]:
    """What `pipeline.cli.main` does for every command."""
    return nullcontext()
