"""Proxies, for libraries that do not look for them in the environment themselves."""

from __future__ import annotations

import urllib.parse
import urllib.request


def proxy_for(url: str) -> str | None:
    """The proxy through which the environment says a URL is reached; None: directly."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # the library that connects refuses it, with its own words
        return None
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)
