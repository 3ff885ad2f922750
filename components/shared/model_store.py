"""Version folders: what one is, which is the newest, and how one is written, for every node and command.

A server looks at the folder of a model for sub-folders with a number as their name. A version is one that
holds a whole SavedModel: what a server can load, and so what it serves. The server imports nothing of this
project and goes by what loads; a test keeps the two equal.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
# TFX's Trainer writes into a sub-folder, whose name depends on its version; a pushed model lies bare.
_PLACES = ("Format-Serving", "serving_model_dir", ".")
# What the Pusher adds to a version: see training_facts.py. Servers leave unknown files there alone.
TRAINING_FACTS = "assets.extra/training_facts.json"
_NUMBER = re.compile(r"\d{1,18}")
_SHARD = re.compile(r"variables\.data-\d{5}-of-(\d{5})")
# Servers look at numeric names alone, so what is half copied below this name is never loaded.
STAGING = ".unfinished-"
_STALE_S = 24 * 3600.0  # what a killed process left is removed after this time


@dataclass(frozen=True)
class Version:
    """A version of a model.

    Attributes:
        number: the folder's name; `00000123` is 123.
        folder: where the SavedModel is.
    """

    number: int
    folder: Path


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a SavedModel, and every file of its variables that the others announce."""
    if not any((folder / name).is_file() for name in MODEL_FILES):
        return False
    variables = folder / "variables"
    names = [path.name for path in variables.iterdir()] if variables.is_dir() else []
    shards = [match for name in names if (match := _SHARD.fullmatch(name))]
    if "variables.index" in names or shards:
        return "variables.index" in names and bool(shards) and len(shards) == int(shards[0][1])
    return True  # a model without variables


def versions(base: str | Path) -> list[Version]:
    """The versions in the folder of a model, in ascending order; none where there is no such folder."""
    folders = {int(path.name): path for path in _numbered(Path(base)) if is_whole(path)}
    return [Version(number, folders[number]) for number in sorted(folders)]


def newest(base: str | Path) -> Version | None:
    """The version that a server serves; None where there is none."""
    return next(reversed(versions(base)), None)


def find(folder: str | Path) -> str | None:
    """The folder of the SavedModel in an artifact's folder, whatever wrote it; None where there is none."""
    return next((str(place) for name in _PLACES if is_whole(place := Path(folder, name))), None)


def write(source: str | Path, base: str | Path, added: Mapping[str, str] | None = None) -> Version:
    """Copy a SavedModel to a new version, later than all others, so that it is there whole or not at all.

    Its number is the time in seconds, or the next one after the highest folder's. What was copied is on the
    disk before it gets its name, so that also a power failure leaves no half version.

    Args:
        source: folder of the SavedModel.
        base: folder of the version folders; made where it is not there.
        added: texts to put into the version, by the names of their files.

    Raises:
        ValueError: where there is no whole SavedModel.
        OSError: where it cannot be copied; nothing is left then.
    """
    if not is_whole(Path(source)):
        raise ValueError(f"there is no whole SavedModel in {source}")
    base = Path(base)
    base.mkdir(parents=True, exist_ok=True)
    _remove_stale(base)
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=base))
    try:
        draft = staging / "model"
        _copy(Path(source), draft, added or {})
        number = int(time.time())
        while True:
            # A number without a model counts too: its folder may be another's, who is still copying.
            number = max(number, *(int(path.name) + 1 for path in _numbered(base)), 1)
            try:
                draft.rename(base / str(number))
                break
            except OSError as error:  # another process took this number in the meantime
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        _to_disk(base)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Version(number, base / str(number))


def fingerprint(folder: str | Path) -> str:
    """SHA-256 of the names and the contents of a model's files: the same before and after the push."""
    total, added = hashlib.sha256(), Path(folder, TRAINING_FACTS)
    for path in sorted(path for path in Path(folder).rglob("*") if path.is_file() and path != added):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _numbered(base: Path) -> list[Path]:
    found = sorted(base.iterdir()) if base.is_dir() else []
    return [path for path in found if _NUMBER.fullmatch(path.name)]


def _remove_stale(base: Path) -> None:
    for path in base.glob(f"{STAGING}*"):
        with suppress(FileNotFoundError):  # another process has finished with it in the meantime
            if time.time() - path.stat().st_mtime > _STALE_S:
                shutil.rmtree(path, ignore_errors=True)


def _copy(source: Path, target: Path, added: Mapping[str, str]) -> None:
    """Copy a folder to the disk; modes are those of new files, since a server may be another user."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        else:
            shutil.copyfile(path, copy)
    for name, text in added.items():
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text(text)
    for path in (*target.rglob("*"), target):
        _to_disk(path)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
