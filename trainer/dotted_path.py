"""Functions of the user's, named by dotted path."""

from __future__ import annotations

import importlib
from typing import Any


def load(path: str, setting: str) -> Any:
    """Import what a dotted path names.

    Args:
        path: `package.module.function`.
        setting: where the path stands, for the message.

    Raises:
        ValueError: one line that says what is wrong with the path.
    """
    module, _, name = path.rpartition(".")
    if not module or not name:
        raise ValueError(f"{setting}={path}: give package.module.function")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{setting}={path}: {error}; it must be importable: see PYTHONPATH") from error
    except Exception as error:  # whatever the module does when it is imported
        message = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{setting}={path}: {module} cannot be imported: {message}") from error
    if not callable(found):
        raise ValueError(f"{setting}={path}: this is no function but a {type(found).__name__}")
    return found
