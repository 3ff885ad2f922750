"""Parquet files, as Hugging Face lays image data sets out.

A column of picture files (a struct of `bytes` and `path`, or plain binary) and one of labels, whose class
names stand in the schema's metadata. A file's split is the beginning of its name: `train-00000-of-00002`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.image_example_gen.sources.base import (
    SPLIT_NAMES,
    SPLITS,
    DataSet,
    Options,
    Part,
    Pictures,
    SourceError,
    in_batches,
    relative,
)
from components.image_example_gen.sources.survey import Survey, offset_of
from trainer import features

IMAGE_COLUMNS = ("image", "img", "picture")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
_ROWS = 256  # decoded at once


@dataclass(frozen=True)
class Columns:
    """Which columns are read, and the classes' names where the schema has them."""

    image: str
    label: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Parquet:
    """Picture files in the rows of Parquet files."""

    folder: Path
    options: Options = field(default_factory=Options)
    name: str = "parquet"

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether there is a Parquet file."""
        return bool(_files(folder))

    def inspect(self) -> DataSet:
        """See base.Source."""
        offset, notes = self._offset
        survey = Survey(self.folder, self.options)
        for part in self.parts():
            survey.add_all(part.split, self.read(part))
        return survey.result(self.name, self._columns.names, notes, offset)

    def parts(self, data: DataSet | None = None) -> Iterator[Part]:  # noqa: ARG002 (base.Source's)
        """See base.Source: a row group is a part."""
        columns, (offset, _) = self._columns, self._offset
        for split, files in self._splits.items():
            first = 0
            for path in files:
                metadata = _open(path).metadata
                row = 0
                for group in range(metadata.num_row_groups):
                    count = metadata.row_group(group).num_rows
                    what = (relative(path, self.folder), group, row, columns, offset)
                    yield Part(split, first, count, what)
                    first, row = first + count, row + count

    def read(self, part: Part, at: NDArray[np.int64] | None = None) -> Iterator[Pictures]:
        """See base.Source."""
        yield from in_batches(self._pictures(part, None if at is None else set(at.tolist())))

    def _pictures(self, part: Part, wanted: set[int] | None) -> Iterator[tuple[bytes, int, str, int]]:
        name, group, row, columns, offset = part.what
        path, place = self.folder / name, 0
        try:
            for batch in _open(path).iter_batches(
                _ROWS, row_groups=[group], columns=[columns.image, columns.label]
            ):
                for image, label in zip(
                    batch.column(columns.image), batch.column(columns.label), strict=True
                ):
                    if wanted is None or place in wanted:
                        where = f"row {row + place}"
                        content = _content(image.as_py(), path, where)
                        yield (
                            content,
                            _label(label.as_py(), path, where) - offset,
                            f"{name}#{row + place}",
                            place,
                        )
                    place += 1
        except (pa.ArrowException, OSError) as error:
            raise SourceError(path, f"broken Parquet: {_line(error)}") from None

    @cached_property
    def _splits(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        files = _files(self.folder)
        for path in files:
            begin = re.match(r"[a-zA-Z0-9]*", path.stem)
            split = SPLIT_NAMES.get(begin.group().lower()) if begin else None
            if split is None and len(files) > 1:
                raise SourceError(path, "its name begins with no split: train-…, validation-… or test-…")
            found.setdefault(split or features.TRAIN, []).append(path)
        if features.TRAIN not in found:
            raise SourceError(self.folder, "there is no Parquet file whose name begins with train")
        return {split: found[split] for split in SPLITS if split in found}

    @cached_property
    def _columns(self) -> Columns:
        """The same in all files."""
        found = {
            path: _find_columns(path, self.options) for files in self._splits.values() for path in files
        }
        first_path, first = next(iter(found.items()))
        for path, columns in found.items():
            if columns != first:
                raise SourceError(path, f"its columns or class names are not those of {first_path.name}")
        return first

    @cached_property
    def _offset(self) -> tuple[int, list[str]]:
        columns = self._columns
        if columns.names:
            return 0, []
        least = min(
            (_least(path, columns.label) for files in self._splits.values() for path in files), default=0
        )
        return offset_of(least, self.options)


def _files(folder: Path) -> list[Path]:
    places = (folder, folder / "data")
    return sorted(path for place in places if place.is_dir() for path in place.glob("*.parquet"))


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(path, f"no Parquet file: {_line(error)}") from None


def _find_columns(path: Path, options: Options) -> Columns:
    schema = _open(path).schema_arrow
    images = [field.name for field in schema if _is_image(field)]
    image = _choose(path, options.path_column, IMAGE_COLUMNS, images, "picture files", "data.path_column")
    labels = [field.name for field in schema if pa.types.is_integer(field.type)]
    label = _choose(path, options.label_column, LABEL_COLUMNS, labels, "labels", "data.label_column")
    return Columns(image, label, _class_names(schema.metadata or {}, label))


def _is_image(field: pa.Field) -> bool:
    if pa.types.is_struct(field.type):
        return field.type.get_field_index("bytes") >= 0
    return pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)


def _choose(
    path: Path, given: str, usual: tuple[str, ...], there: list[str], what: str, setting: str
) -> str:
    if given:
        if given not in there:
            raise SourceError(path, f"column {given!r} holds no {what}; those that do: {', '.join(there)}")
        return given
    named = [name for name in usual if name in there]
    if named:
        return named[0]
    if len(there) == 1:
        return there[0]
    raise SourceError(path, f"which column holds the {what}: {', '.join(there) or 'none'}? Set {setting}")


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    """Hugging Face's ClassLabel; nothing where the metadata are of another kind."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][label]
        names = feature["names"] if feature["_type"] == "ClassLabel" else []
        return tuple(str(name) for name in names)
    except (KeyError, TypeError, ValueError):
        return ()


def _content(value: Any, path: Path, where: str) -> bytes:
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise SourceError(path, f"{where}: no bytes of a picture (files beside it are not read)")
    return content


def _label(value: Any, path: Path, where: str) -> int:
    if not isinstance(value, int):
        raise SourceError(path, f"{where}: no label")
    return value


def _least(path: Path, column: str) -> int:
    least = [
        int(batch.column(0).drop_null().to_numpy(zero_copy_only=False).min())
        for batch in _open(path).iter_batches(columns=[column])
        if batch.num_rows > batch.column(0).null_count
    ]
    return min(least, default=0)


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
