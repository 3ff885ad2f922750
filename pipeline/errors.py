"""Errors that a person can put right: one line on standard error, and an exit code."""

from __future__ import annotations

# A run or a server said no; what was given is wrong; requests have drifted; Ctrl-C.
REJECTED, BAD_INPUT, DRIFT, INTERRUPTED = 1, 2, 3, 130


class UserError(Exception):
    """What, where and what to do about it, in one line.

    The command line shows every exception that has an `exit_code` this way: components and serving may not
    import this module and have bases of their own.
    """

    exit_code = BAD_INPUT


class RefusedError(UserError):
    """The input was right, and the answer is no: a node failed, or a server refused."""

    exit_code = REJECTED
