"""A fingerprint of the code that is named by dotted path."""

from __future__ import annotations

import hashlib
from pathlib import Path

import trainer
from pipeline.config import ConfigError, TrainerConfig
from trainer import dotted_path


def code_hash(settings: TrainerConfig) -> str:
    """SHA-256 over the trainer package's sources and the user's own, so that TFX's cache sees a change.

    TFX hashes a `module_file`, but knows a dotted path by its name alone.

    Raises:
        ConfigError: for a dotted path that leads to no module, before anything runs.
    """
    folder = Path(trainer.__file__).parent
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.py"))}
    for setting in ("model_fn", "build_network"):
        if path := getattr(settings, setting):
            try:
                files[path] = Path(dotted_path.source_file(path, f"trainer.{setting}"))
            except ValueError as error:
                raise ConfigError(str(error)) from None
    digest = hashlib.sha256()
    for name, file in files.items():
        digest.update(f"{name}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
