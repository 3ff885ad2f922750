"""Files that are there whole or not at all, also when two workers write the same one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def draft(path: str | os.PathLike[str]) -> Iterator[str]:
    """Where to write what is to become a file: it takes the name `path` when the block ends without error.

    The folder is made where it is not there; an earlier file is replaced; of a block that fails nothing is
    left. A block that writes nothing makes no file. A link stays, and its target is replaced; a pipe or a
    device, such as /dev/stdout, is written to directly.
    """
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        yield str(path)
        return
    target = Path(path).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    # Names that begin with a dot are hidden from the patterns by which TFX and Beam find files.
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        yield str(unfinished)
        if unfinished.exists():
            unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, in UTF-8."""
    with draft(path) as unfinished:
        Path(unfinished).write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file."""
    with draft(path) as unfinished:
        Path(unfinished).write_bytes(content)
