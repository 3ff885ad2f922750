"""The base of every error that a user can repair."""

from __future__ import annotations


class InputError(ValueError):
    """Something given to the pipeline cannot be used: one line that says what, where and what to do."""

    exit_code = 2
