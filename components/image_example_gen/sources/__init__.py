"""Where labelled images come from: one Source for each layout of files, chosen by what is in the folder."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from components.image_example_gen.sources.base import (
    SPLITS,
    BadImages,
    DataSet,
    Options,
    Orient,
    Part,
    Pictures,
    Skipped,
    Source,
    SourceError,
)

__all__ = [
    "NAMES",
    "SPLITS",
    "BadImages",
    "DataSet",
    "Options",
    "Orient",
    "Part",
    "Pictures",
    "Skipped",
    "Source",
    "SourceError",
    "choose",
]

# By module, so that nothing is imported that a data set does not need. In the order of messages.
_SOURCES = {
    "idx": ("idx_folder", "IdxFolder"),
    "cifar": ("cifar", "Cifar"),
    "npz": ("npz", "Npz"),
    "tfrecord": ("tfrecord", "TFRecord"),
    "parquet": ("parquet", "Parquet"),
    "manifest": ("manifest", "Manifest"),
    "folder": ("folder", "ClassFolders"),
}
NAMES = tuple(_SOURCES)


def choose(folder: Path | str, name: str = "", options: Options | None = None) -> Source:
    """The source that reads a folder.

    Args:
        folder: of the data set.
        name: one of NAMES; empty: by what is in the folder.
        options: how to read it.

    Raises:
        SourceError: where there is no such folder, or not exactly one source that reads it.
    """
    folder, options = Path(folder), options or Options()
    if not folder.is_dir():
        raise SourceError(folder, "there is no such folder")
    if name:
        if name not in _SOURCES:
            raise SourceError(folder, f"there is no source {name!r}: there are {', '.join(NAMES)}")
        return _source(name)(folder, options)
    fitting = [name for name in NAMES if _source(name).fits(folder)]
    if len(fitting) == 1:
        return _source(fitting[0])(folder, options)
    if fitting:
        raise SourceError(folder, f"this could be {' or '.join(fitting)}: say which with data.source")
    raise SourceError(
        folder,
        "no data set is recognised here: IDX, CIFAR, NPZ, TFRecord or Parquet files, a manifest (CSV, JSON "
        "lines), or folders of pictures named like their classes",
    )


def _source(name: str) -> Any:
    module, kind = _SOURCES[name]
    return getattr(importlib.import_module(f"components.image_example_gen.sources.{module}"), kind)
