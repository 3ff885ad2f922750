"""A fingerprint of the code that is named by dotted path."""

from __future__ import annotations

import hashlib
from pathlib import Path

import trainer


def code_hash() -> str:
    """SHA-256 over the trainer package's sources, so that TFX's cache sees a changed model.

    TFX hashes a `module_file`, but knows a dotted path by its name alone.
    """
    folder = Path(trainer.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
