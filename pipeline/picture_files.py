"""Which files are pictures, by their names."""

from __future__ import annotations

from pathlib import Path

from components.image_example_gen.sources.pictures import FORMATS, SUFFIXES

KINDS = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def is_picture(path: Path) -> bool:
    """Whether a file's name ends as a picture's."""
    return path.suffix.lower() in SUFFIXES


def in_folder(folder: Path) -> list[Path]:
    """The picture files in a folder, sorted; hidden files are none.

    macOS leaves a hidden `._name.png`, which is no picture, beside each one that it copies.
    """
    return sorted(file for file in folder.iterdir() if is_picture(file) and not file.name.startswith("."))
