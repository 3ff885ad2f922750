"""A manifest: a CSV or JSON-lines file that names a picture, its label and perhaps its split in every row.

One manifest of any name, or one for each split (`train.csv`, `validation.csv`, `test.csv`). Paths are
relative to the manifest. Kaggle's label files, which name pictures without folder and ending, are read too:
`trainLabels.csv` with `train/1.png`.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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

MANIFESTS = frozenset({".csv", ".jsonl", ".ndjson"})
PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "id")
LABEL_COLUMNS = ("label", "class", "target", "category", "class_name")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
_MAX_FIELD = 1 << 20  # characters of a row's field


@dataclass(frozen=True)
class Row:
    """A picture: its path within the folder, and the label as it is written."""

    path: str
    label: str


@dataclass(frozen=True)
class Manifest:
    """Picture files that a table lists."""

    folder: Path
    options: Options = field(default_factory=Options)
    name: str = "manifest"

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether there is a manifest."""
        return bool(_manifests(folder))

    def inspect(self) -> DataSet:
        """See base.Source."""
        survey = Survey(self.folder, self.options)
        for part in self.parts():
            survey.add_all(part.split, self.read(part))
        return survey.result(self.name, self._classes)

    def parts(self, data: DataSet | None = None) -> Iterator[Part]:  # noqa: ARG002 (base.Source's)
        """See base.Source."""
        labels = {name: label for label, name in enumerate(self._classes)}
        return picture_files.parts(
            {split: ((row.path, labels[row.label]) for row in rows) for split, rows in self._rows.items()}
        )

    def read(self, part: Part, at: NDArray[np.int64] | None = None) -> Iterator[Pictures]:
        """See base.Source."""
        return picture_files.read(self.folder, part, at)

    @cached_property
    def _classes(self) -> list[str]:
        """Numbers in their order, names in the alphabet's, or as data.names has them."""
        names = {row.label for rows in self._rows.values() for row in rows}
        numbers = all(name.isdecimal() for name in names)
        return in_order(self.folder, sorted(names, key=int if numbers else None), self.options)

    @cached_property
    def _rows(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        seen: dict[str, str] = {}
        for file, split in _manifests(self.folder).items():
            for place, row_split, row in self._of_file(file, split):
                if row.path in seen:
                    raise SourceError(file, f"{place}: {row.path} stands in {seen[row.path]} already")
                seen[row.path] = f"{file.name}, {place}"
                found.setdefault(row_split, []).append(row)
        if not found:
            raise SourceError(self.folder, "the manifest lists no picture")
        return {split: found[split] for split in SPLITS if split in found}

    def _of_file(self, file: Path, split: str) -> Iterator[tuple[str, str, Row]]:
        reader = _read_csv if file.suffix.lower() == ".csv" else _read_json_lines
        columns: tuple[str, str, str] | None = None
        for line, values in reader(file):
            columns = columns or self._columns(file, list(values))
            path, label, own_split = (values.get(name, "").strip() for name in columns)
            if not path or not label:
                raise SourceError(file, f"line {line}: no {columns[0] if not path else columns[1]}")
            if own_split and own_split.lower() not in SPLIT_NAMES:
                known = ", ".join(SPLITS)
                raise SourceError(file, f"line {line}: split {own_split!r} is none of {known}")
            row_split = SPLIT_NAMES[own_split.lower()] if own_split else split
            yield f"line {line}", row_split, Row(self._find(file, line, path, row_split), label)

    def _columns(self, file: Path, names: list[str]) -> tuple[str, str, str]:
        """Those of path, label and split; the last may be missing."""
        options = self.options
        return (
            _column(file, names, options.path_column, PATH_COLUMNS, "data.path_column"),
            _column(file, names, options.label_column, LABEL_COLUMNS, "data.label_column"),
            _column(file, names, options.split_column, SPLIT_COLUMNS, ""),
        )

    def _find(self, file: Path, line: int, path: str, split: str) -> str:
        """The picture's path within the folder: as written, or without folder and ending as Kaggle does."""
        # Strings: a Path for each of a million rows would take longer than to read their pictures.
        if path.startswith("/") or ".." in path.split("/"):
            raise SourceError(file, f"line {line}: {path} is not below the manifest's folder")
        ending_given = os.path.splitext(path)[1].lower() in SUFFIXES  # noqa: PTH122
        endings = ("",) if ending_given else ("", *sorted(SUFFIXES))
        for folder in ("", f"{split}/", "images/"):
            for ending in endings:
                if os.path.isfile(f"{self.folder}/{folder}{path}{ending}"):  # noqa: PTH113
                    return f"{folder}{path}{ending}"
        raise SourceError(file, f"line {line}: there is no picture {path}")


def _manifests(folder: Path) -> dict[Path, str]:
    """The manifests of a folder with the split that each is for."""
    if not folder.is_dir():
        return {}
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in MANIFESTS and path.is_file())
    files = [path for path in files if not path.name.startswith(".")]
    by_split = {path: SPLIT_NAMES[path.stem.lower()] for path in files if path.stem.lower() in SPLIT_NAMES}
    if features.TRAIN in by_split.values():
        return by_split
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        raise SourceError(folder, f"which is the manifest: {names}? Move the others away")
    return dict.fromkeys(files, features.TRAIN)


def _column(file: Path, names: list[str], given: str, usual: Sequence[str], setting: str) -> str:
    if given:
        if given not in names:
            raise SourceError(file, f"there is no column {given!r}; there are {', '.join(names)}")
        return given
    for name in usual:
        for own in names:
            if own.lower() == name:
                return own
    if not setting:
        return ""
    raise SourceError(
        file, f"none of the columns {', '.join(names)} is {', '.join(usual)}: name it with {setting}"
    )


def _read_csv(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(_MAX_FIELD)
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, strict=True)
            for values in reader:
                if None in values or None in values.values():
                    raise SourceError(
                        file, f"line {reader.line_num}: not as many fields as the first line has"
                    )
                yield reader.line_num, values
    except (csv.Error, UnicodeDecodeError) as error:
        raise SourceError(file, f"no CSV in UTF-8: {error}") from None
    except OSError as error:
        raise SourceError(file, error.strerror or str(error)) from None


def _read_json_lines(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with file.open(encoding="utf-8-sig") as text:
            for line, content in enumerate(text, 1):
                if not content.strip():
                    continue
                values = json.loads(content)
                if not isinstance(values, dict):
                    raise SourceError(file, f"line {line}: no JSON object")
                yield line, {key: str(value) for key, value in values.items() if value is not None}
    except json.JSONDecodeError as error:
        raise SourceError(file, f"line {line}: no JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise SourceError(file, f"not UTF-8: {error}") from None
    except RecursionError:
        raise SourceError(file, f"line {line}: nested too deeply") from None
    except OSError as error:
        raise SourceError(file, error.strerror or str(error)) from None
