"""Finds the SavedModel in a folder, whatever laid it there, and says which one it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

_FILE = "saved_model.pb"
# TFX's Trainer lays it in a subfolder, whose name depends on its version; a pushed model lies bare.
_PLACES = ("Format-Serving", "serving_model_dir", ".")


def find(folder: str) -> str | None:
    """The folder of the SavedModel in an artifact's folder; None where there is none."""
    places = [Path(folder, place) for place in _PLACES]
    return next((str(place) for place in places if (place / _FILE).is_file()), None)


def fingerprint(folder: str) -> str:
    """SHA-256 of the names and the contents of the files below a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
