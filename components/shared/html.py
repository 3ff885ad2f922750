"""HTML pages that need nothing else: the style that all of them share, and how their templates are read."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup


def template(package: str, name: str, **filters: Callable[..., Any]) -> jinja2.Template:
    """Read a Jinja template; what it is given is escaped, a value that is missing is an error.

    Args:
        package: the Python package whose folder holds it.
        name: its path in there.
        filters: functions that the template calls by these names.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= filters
    return environment.from_string(_text(package, name))


def style() -> Markup:
    """The style sheet of the report and of the other pages."""
    return Markup(_text(__package__, "page.css"))


def _text(package: str, name: str) -> str:
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
