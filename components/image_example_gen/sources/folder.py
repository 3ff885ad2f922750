"""Class folders, as Keras's image_dataset_from_directory and torchvision's ImageFolder read them.

    FOLDER/train/<class>/**/picture.jpg, FOLDER/validation/…, FOLDER/test/…
    FOLDER/<class>/**/picture.jpg

Labels are the places of the class folders' names in alphabetical order, or in `data.names`. Names that
begin with a dot are no pictures and no classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.image_example_gen.sources import picture_files
from components.image_example_gen.sources.base import (
    SPLIT_NAMES,
    SPLITS,
    DataSet,
    Options,
    Part,
    Pictures,
    SourceError,
)
from components.image_example_gen.sources.pictures import SUFFIXES
from components.image_example_gen.sources.survey import Survey, in_order
from trainer import features


@dataclass(frozen=True)
class ClassFolders:
    """Picture files in a folder for each class."""

    folder: Path
    options: Options = field(default_factory=Options)
    name: str = "folder"

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether two or more folders with pictures lie in `train`, or in the folder itself."""
        roots = [path for split, path in _split_folders(folder).items() if split == features.TRAIN]
        root = roots[0] if roots else folder
        with_pictures = (path for path in _class_folders(root) if any(map(_is_picture, _walk(path))))
        return len(list(islice(with_pictures, 2))) == 2

    def inspect(self) -> DataSet:
        """See base.Source."""
        survey = Survey(self.folder, self.options)
        for part in self.parts():
            survey.add_all(part.split, self.read(part))
        others = self._files[1]
        notes = [f"{len(others)} files are no pictures by their names: {_few(others)}"] if others else []
        return survey.result(self.name, self._classes, notes)

    def parts(self, data: DataSet | None = None) -> Iterator[Part]:  # noqa: ARG002 (base.Source's)
        """See base.Source."""
        return picture_files.parts(self._files[0])

    def read(self, part: Part, at: NDArray[np.int64] | None = None) -> Iterator[Pictures]:
        """See base.Source."""
        return picture_files.read(self.folder, part, at)

    @cached_property
    def _roots(self) -> dict[str, Path]:
        """The folder of class folders of each split."""
        found = _split_folders(self.folder)
        return found if features.TRAIN in found else {features.TRAIN: self.folder}

    @cached_property
    def _classes(self) -> list[str]:
        names = {path.name for root in self._roots.values() for path in _class_folders(root)}
        return in_order(self.folder, sorted(names), self.options)

    @cached_property
    def _files(self) -> tuple[dict[str, list[tuple[str, int]]], list[str]]:
        """Path within the folder and label of every picture, by split; and the files that are none."""
        found: dict[str, list[tuple[str, int]]] = {}
        others: list[str] = []
        for split in SPLITS:
            if split not in self._roots:
                continue
            root, files = self._roots[split], []
            for label, name in enumerate(self._classes):
                of_class: list[str] = []
                before = (root / name).relative_to(self.folder).as_posix()
                for path in _walk(root / name):
                    (of_class if _is_picture(path) else others).append(f"{before}/{path}")
                if not of_class and (root / name).is_dir():
                    raise SourceError(root / name, "no picture in this class folder: move it away")
                # Folder by folder, as paths are sorted: "a/b" before "a-b".
                of_class.sort(key=lambda path: path.split("/"))
                files += [(path, label) for path in of_class]
            if files:
                found[split] = files
        if not found:
            raise SourceError(self.folder, "no class folders with pictures in them")
        return found, others


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _split_folders(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _class_folders(folder):
        split = SPLIT_NAMES.get(path.name.lower())
        if split is None:
            continue
        if split in found:
            raise SourceError(folder, f"both {found[split].name} and {path.name} are {split}: rename one")
        found[split] = path
    return found


def _class_folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _walk(folder: Path) -> Iterator[str]:
    """The files below a folder, through links too; nothing whose name begins with a dot.

    Yields:
        Paths within the folder: a Path for each of a million files would take longer than to read them.
    """
    seen: set[str] = set()
    for base, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        before = "" if base == os.fspath(folder) else f"{os.path.relpath(base, folder)}/"
        yield from (before + name for name in files if not name.startswith("."))


def _is_picture(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES  # noqa: PTH122 (no Path for each file)
