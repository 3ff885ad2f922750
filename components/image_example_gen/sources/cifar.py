"""CIFAR-10 and CIFAR-100, as their authors publish them (https://www.cs.toronto.edu/~kriz/cifar.html).

The binary form: records of one label byte (CIFAR-100: a coarse and a fine one) and 3,072 bytes, the red,
green and blue planes of 32 x 32. The Python form: pickled dicts of the same arrays; they are read by an
unpickler that admits NumPy arrays alone.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.image_example_gen.sources import arrays
from components.image_example_gen.sources.base import BATCH, DataSet, Options, Part, Pictures, SourceError
from components.image_example_gen.sources.survey import Survey
from trainer import features

SIDE, PLANES = 32, 3
PIXELS = SIDE * SIDE * PLANES
_BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
_MAX_FILE_BYTES = 1 << 28
_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True)
class Layout:
    """One of the four forms.

    Attributes:
        files: by split.
        names: file of the classes' names.
        label_bytes: before each image of the binary form; 0: the Python form.
        labels: key of the labels in the Python form.
        names_key: key of the names there.
        classes: how many.
    """

    files: dict[str, tuple[str, ...]]
    names: str
    label_bytes: int
    labels: bytes
    names_key: str
    classes: int


LAYOUTS = (
    Layout(
        {features.TRAIN: tuple(f"{name}.bin" for name in _BATCHES), features.TEST: ("test_batch.bin",)},
        "batches.meta.txt",
        1,
        b"",
        "",
        10,
    ),
    Layout(
        {features.TRAIN: ("train.bin",), features.TEST: ("test.bin",)},
        "fine_label_names.txt",
        2,
        b"",
        "",
        100,
    ),
    Layout(
        {features.TRAIN: tuple(_BATCHES), features.TEST: ("test_batch",)},
        "batches.meta",
        0,
        b"labels",
        "label_names",
        10,
    ),
    Layout(
        {features.TRAIN: ("train",), features.TEST: ("test",)},
        "meta",
        0,
        b"fine_labels",
        "fine_label_names",
        100,
    ),
)


@dataclass(frozen=True)
class Cifar:
    """CIFAR-10 or CIFAR-100 in the binary or the Python form."""

    folder: Path
    options: Options = field(default_factory=Options)
    name: str = "cifar"

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether a layout's first training file and its names are there."""
        return any(_has(folder, layout) for layout in LAYOUTS)

    def inspect(self) -> DataSet:
        """See base.Source."""
        survey = Survey(self.folder, self.options, (SIDE, SIDE, PLANES))
        for part in self.parts():
            survey.add_all(part.split, self.read(part))
        return survey.result(self.name, self._class_names)

    def parts(self, data: DataSet | None = None) -> Iterator[Part]:  # noqa: ARG002 (base.Source's)
        """See base.Source: a file is a part."""
        for split, names in self._layout.files.items():
            first = 0
            for name in names:
                path = self.folder / name
                if not path.is_file():
                    raise SourceError(path, "this file of the data set is missing")
                count = self._count(path)
                yield Part(split, first, count, name)
                first += count

    def read(self, part: Part, at: NDArray[np.int64] | None = None) -> Iterator[Pictures]:
        """See base.Source."""
        path = self.folder / part.what
        batches = self._binary(path) if self._layout.label_bytes else self._pickled(path)
        place = 0
        for planes, labels in batches:
            outside = np.flatnonzero(labels >= self._layout.classes)
            if len(outside):
                raise SourceError(
                    path,
                    f"image {place + outside[0]}: label {labels[outside[0]]} is not in the range "
                    f"0…{self._layout.classes - 1}",
                )
            images = planes.reshape(-1, PLANES, SIDE, SIDE).transpose(0, 2, 3, 1)
            pictures = arrays.to_pictures(images, labels, part.what, place, place, self.options.orient, at)
            place += len(labels)
            if len(pictures):
                yield pictures

    @cached_property
    def _layout(self) -> Layout:
        for layout in LAYOUTS:
            if _has(self.folder, layout):
                return layout
        raise SourceError(self.folder, "no CIFAR-10 or CIFAR-100 in the binary or the Python form")

    @cached_property
    def _class_names(self) -> list[str]:
        path = self.folder / self._layout.names
        if self._layout.label_bytes:
            try:
                names = path.read_text("utf-8").split()
            except (OSError, UnicodeDecodeError) as error:
                raise SourceError(path, str(error)) from None
        else:
            content = _unpickled(path)
            found = content.get(self._layout.names_key.encode(), [])
            names = [
                name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in found
            ]
        if len(names) != self._layout.classes:
            raise SourceError(path, f"{len(names)} class names, {self._layout.classes} expected")
        return names

    def _count(self, path: Path) -> int:
        if not self._layout.label_bytes:
            return len(self._arrays(path)[1])
        size, record = path.stat().st_size, self._layout.label_bytes + PIXELS
        if size % record or not size:
            raise SourceError(
                path, f"offset {size - size % record}: {size % record} bytes of a record of {record}"
            )
        return size // record

    def _binary(self, path: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        before = self._layout.label_bytes
        with path.open("rb") as file:
            while content := file.read(BATCH * (before + PIXELS)):
                records = np.frombuffer(content, np.uint8).reshape(-1, before + PIXELS)
                # CIFAR-100's first byte is the superclass.
                yield records[:, before:], records[:, before - 1].astype(np.int64)

    def _pickled(self, path: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
        planes, labels = self._arrays(path)
        for first in range(0, len(labels), BATCH):
            yield planes[first : first + BATCH], labels[first : first + BATCH]

    def _arrays(self, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        content = _unpickled(path)
        planes, labels = content.get(b"data"), content.get(self._layout.labels)
        if not isinstance(planes, np.ndarray) or planes.dtype != np.uint8 or planes.shape[1:] != (PIXELS,):
            raise SourceError(path, f"'data' is no uint8 array of N x {PIXELS}")
        if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
            raise SourceError(path, f"{self._layout.labels.decode()!r} is no list of integers")
        if len(labels) != len(planes):
            raise SourceError(path, f"{len(labels)} labels, but {len(planes)} images")
        if min(labels, default=0) < 0:
            raise SourceError(path, f"image {labels.index(min(labels))}: label {min(labels)}")
        return planes, np.array(labels, np.int64)


class _ArraysOnly(pickle.Unpickler):
    """Builds plain containers and NumPy arrays, and nothing else that a pickle could ask for."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module, name)


def _unpickled(path: Path) -> dict[bytes, Any]:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise SourceError(path, f"larger than any CIFAR file: over {_MAX_FILE_BYTES} bytes")
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
    except SourceError:
        raise
    except OSError as error:
        raise SourceError(path, error.strerror or str(error)) from None
    except Exception as error:  # a broken pickle can end in any of them
        raise SourceError(path, f"no pickled arrays: {type(error).__name__}: {error}") from None
    if not isinstance(content, dict):
        raise SourceError(path, "no pickled dict")
    return {key.encode() if isinstance(key, str) else key: value for key, value in content.items()}


def _has(folder: Path, layout: Layout) -> bool:
    return (folder / layout.files[features.TRAIN][0]).is_file() and (folder / layout.names).is_file()
