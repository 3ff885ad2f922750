"""An NPZ file of arrays, as Keras's data sets (`x_train`, `y_train`, …) or MedMNIST (`train_images`, …).

Arrays are read from the zip file piece by piece; an object array, which would be a pickle, is refused.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from components.image_example_gen.sources import arrays
from components.image_example_gen.sources.base import (
    BATCH,
    BATCH_BYTES,
    DataSet,
    Options,
    Part,
    Pictures,
    SourceError,
)
from components.image_example_gen.sources.survey import Survey, offset_of
from trainer import features

NAMES = {
    features.TRAIN: (("x_train", "y_train"), ("train_images", "train_labels")),
    features.VALIDATION: (("x_val", "y_val"), ("x_valid", "y_valid"), ("val_images", "val_labels")),
    features.TEST: (("x_test", "y_test"), ("test_images", "test_labels")),
}
_MAX_LABEL_BYTES = 1 << 30


@dataclass(frozen=True)
class Npz:
    """Arrays in one NPZ file."""

    folder: Path
    options: Options = field(default_factory=Options)
    name: str = "npz"

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether there is an NPZ file."""
        return bool(_files(folder))

    def inspect(self) -> DataSet:
        """See base.Source."""
        offset, notes = self._offset
        survey = Survey(self.folder, self.options, self._shape)
        for part in self.parts():
            survey.add_all(part.split, self.read(part))
        return survey.result(self.name, notes=notes, label_offset=offset)

    def parts(self, data: DataSet | None = None) -> Iterator[Part]:  # noqa: ARG002 (base.Source's)
        """See base.Source: a split is one part; an array in a zip file is read from its start."""
        for split, (images, labels) in self._arrays.items():
            with _Array(self._file, images) as array:
                yield Part(split, 0, array.shape[0], (images, labels, self._offset[0]))

    def read(self, part: Part, at: NDArray[np.int64] | None = None) -> Iterator[Pictures]:
        """See base.Source."""
        images_name, labels_name, offset = part.what
        labels = self._labels(labels_name)
        with _Array(self._file, images_name) as array:
            if len(labels) != array.shape[0]:
                raise SourceError(
                    self._file,
                    f"{labels_name} has {len(labels)} labels, {images_name} {array.shape[0]} images",
                )
            first = 0
            while len(images := array.read()):
                some = labels[first : first + len(images)] - offset
                file = f"{self._file.name}/{images_name}"
                pixels = arrays.with_channels(images, self._file)
                if pictures := arrays.to_pictures(
                    pixels, some, file, first, first, self.options.orient, at
                ):
                    yield pictures
                first += len(images)

    @cached_property
    def _file(self) -> Path:
        files = _files(self.folder)
        if len(files) != 1:
            names = ", ".join(path.name for path in files) or "none"
            raise SourceError(self.folder, f"one NPZ file is needed, there are: {names}")
        return files[0]

    @cached_property
    def _arrays(self) -> dict[str, tuple[str, str]]:
        """Names of images and labels, by split."""
        try:
            with zipfile.ZipFile(self._file) as file:
                names = {name.removesuffix(".npy") for name in file.namelist()}
        except (zipfile.BadZipFile, OSError) as error:
            raise SourceError(self._file, f"no NPZ file: {error}") from None
        found = {split: pair for split, pairs in NAMES.items() for pair in pairs if names.issuperset(pair)}
        if features.TRAIN not in found:
            raise SourceError(
                self._file,
                "no x_train and y_train, or train_images and train_labels; it has "
                + ", ".join(sorted(names)),
            )
        return found

    @cached_property
    def _shape(self) -> tuple[int, int, int]:
        shapes = {}
        for split, (images, _) in self._arrays.items():
            with _Array(self._file, images) as array:
                empty = np.empty((0, *array.shape[1:]), array.dtype)
                shapes[split] = arrays.with_channels(empty, self._file).shape[1:]
        if len(set(shapes.values())) > 1:
            raise SourceError(self._file, f"images of several sizes: {shapes}")
        return arrays.oriented_shape(shapes[features.TRAIN], self.options.orient)

    @cached_property
    def _offset(self) -> tuple[int, list[str]]:
        labels = np.concatenate([self._labels(name) for _, name in self._arrays.values()])
        return offset_of(int(labels.min()) if len(labels) else 0, self.options)

    def _labels(self, name: str) -> NDArray[np.int64]:
        with _Array(self._file, name) as array:
            return arrays.flat_labels(array.read_all(_MAX_LABEL_BYTES), self._file)


class _Array:
    """One array of an NPZ file, read from its start; a context manager."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name
        self._zip = zipfile.ZipFile(path)
        self._file: IO[bytes] = self._zip.open(f"{name}.npy")
        try:
            self.shape, self.dtype = self._header()
        except BaseException:
            self._zip.close()
            raise
        self._left = self.shape[0]

    def __enter__(self) -> _Array:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def _header(self) -> tuple[tuple[int, ...], np.dtype]:
        try:
            version = np.lib.format.read_magic(self._file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, by_columns, dtype = read(self._file)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise SourceError(self._path, f"{self._name}: no NumPy array: {error}") from None
        if dtype.hasobject or by_columns or not shape:
            raise SourceError(
                self._path,
                f"{self._name}: dtype {dtype}, shape {shape}: only plain arrays by rows are read",
            )
        return shape, dtype

    def read(self) -> NDArray:
        """The next rows; none after the last."""
        row = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        count = min(self._left, BATCH, max(1, BATCH_BYTES // max(row, 1)))
        self._left -= count
        return self._rows(count, row)

    def read_all(self, most_bytes: int) -> NDArray:
        """All rows."""
        row = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        if row * self.shape[0] > most_bytes:
            raise SourceError(self._path, f"{self._name}: absurd size {self.shape}")
        return self._rows(self.shape[0], row)

    def _rows(self, count: int, row: int) -> NDArray:
        try:
            content = self._file.read(count * row)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise SourceError(self._path, f"{self._name}: broken: {error}") from None
        if len(content) < count * row:
            raise SourceError(
                self._path, f"{self._name}: truncated: {count * row - len(content)} bytes missing"
            )
        return np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npz")) if folder.is_dir() else []
