"""What is wrong with a model's folder in which no version is found: people give the wrong one of three."""

from __future__ import annotations

import re
from pathlib import Path

VERSION = re.compile(r"\d{1,18}")
TFLITE_FILE = "model.tflite"  # TF Serving's name for it
MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt", TFLITE_FILE)


def is_version(folder: Path) -> bool:
    """Whether a folder is itself a SavedModel or a TF Lite model, and no folder of versions."""
    return any((folder / name).is_file() for name in MODEL_FILES)


def hint(base_path: Path) -> str:
    """What to do about a folder without versions; empty when waiting is all there is to do."""
    if is_version(base_path):
        if base_path.name.isdigit():
            return f": it is a version itself; give {base_path.parent}"
        return f": it is a SavedModel itself; move that to {base_path / '1'}"
    try:
        for folder in sorted(each for each in base_path.iterdir() if each.is_dir()):
            if is_version(folder):
                return f": a version has a number as its name; rename {folder}"
            if any(is_version(below) for below in folder.iterdir()):
                return f": the versions are one folder further down; give {folder}"
    except OSError:  # away, or not ours to read
        pass
    return ""
