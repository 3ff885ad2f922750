"""Open files: every connection is one, and a process may have so many."""

from __future__ import annotations

import resource

ENOUGH = 65536
RESERVED = 128  # for models, logs and pages


def raise_limit() -> None:
    """Have this process open as many files as it is allowed to; the usual 1024 are few for a server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_within(wanted: int) -> int:
    """The most connections at each of two ports: as many as are wanted, or as open files allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max((soft - RESERVED) // 2, 1))
