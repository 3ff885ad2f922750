"""The names of classes in a file: `data.names`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import ConfigError, DataConfig

# Where Keras keeps the 1,000 names of ImageNet, below the home folder.
IMAGENET = Path(".keras", "models", "imagenet_class_index.json")


def named(config: DataConfig) -> DataConfig:
    """The settings with what the file says; without a file they stay as they are.

    Raises:
        ConfigError: for a file that cannot be read, or another `data.num_classes`.
    """
    if not config.names:
        return config
    ids, names = read(Path(config.names).expanduser())
    if config.num_classes not in (0, len(names)):
        raise ConfigError(
            f"data.names={config.names} has {len(names)} names and data.num_classes={config.num_classes}"
        )
    return config.model_copy(update={"class_names": names, "class_ids": ids, "num_classes": len(names)})


def read(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a data set calls its classes, and their names, both by label.

    Args:
        path: a text file with a name a line; or JSON: a list of names, or, as Keras's
            imagenet_class_index.json, `{"0": ["n01440764", "tench"], …}`.

    Raises:
        ConfigError: one line: what is wrong, and where.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is no text in UTF-8"
        raise ConfigError(f"data.names={path}: {reason}") from None
    pairs = (
        _of_json(path, text)
        if text.startswith(("{", "["))
        else [(line.strip(),) * 2 for line in text.splitlines()]
    )
    for label, pair in enumerate(pairs):
        if not all(pair):
            raise ConfigError(f"data.names={path}: class {label} has no name")
    if len(pairs) < 2:
        raise ConfigError(f"data.names={path}: {len(pairs)} names: a classifier needs two or more")
    return tuple(first for first, _ in pairs), tuple(second for _, second in pairs)


def _of_json(path: Path, text: str) -> Sequence[tuple[str, str]]:
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"data.names={path}: {error}") from None
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return [(name, name) for name in content]
    try:
        found = [content[str(label)] for label in range(len(content))]
        return [(str(first), str(second)) for first, second in found]
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f'data.names={path}: this is no list of names, and not {{"0": ["ID", "NAME"], "1": …}} as '
            "Keras's imagenet_class_index.json"
        ) from None
