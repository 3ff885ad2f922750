"""What bulk inference reads: pictures and IDX files, planned as chunks before the first one is read.

A chunk is as much as is in memory at a time. Chunks are numbered in the order of the input, so that their
answers can be put in order wherever they were computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.image_example_gen.sources import idx
from pipeline import picture_files
from pipeline.errors import UserError
from serving.protocol import image_headers
from serving.protocol.errors import ServingError
from trainer.features import ImageShape

IMAGES = 4096  # of an IDX file in a chunk; fewer where they would not fit into idx.BUFFER_BYTES
PICTURES = 256
PICTURE_BYTES = 1 << 26  # of picture files in a chunk, about
# PNG, JPEG, GIF, BMP, WebP.
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")
_GZIP = b"\x1f\x8b"


class InputError(UserError):
    """Nothing to read, or images that the model cannot take: one line for a person."""


@dataclass(frozen=True)
class Task:
    """Chunks that are read one after the other: of an IDX file, or of some pictures.

    Attributes:
        number: of its first chunk.
        counts: images in each chunk.
        files: the IDX file, or the pictures.
        is_idx: which of the two.
        first: index of the first image, of an IDX file.
    """

    number: int
    counts: tuple[int, ...]
    files: tuple[Path, ...]
    is_idx: bool
    first: int


@dataclass(frozen=True)
class Chunk:
    """Images that were read.

    Attributes:
        number: its place in the whole.
        keys: how the line of each image begins: `file`, and `index` in an IDX file.
        images: uint8 [n, H, W], with colours [n, H, W, C], of an IDX file; otherwise the content of each
            picture file that could be read, in order.
        errors: why not, by place among the keys.
    """

    number: int
    keys: Sequence[dict[str, Any]]
    images: NDArray[np.uint8] | Sequence[bytes]
    errors: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)


def plan(paths: Sequence[Path], shape: ImageShape) -> list[Task]:
    """The work, in the order of the input; pictures in a folder are sorted by name.

    Plain IDX files are checked by their size, gzipped ones by reading them once.

    Args:
        paths: picture files, folders of them, IDX image files (.gz or not).
        shape: of the model's images.

    Raises:
        InputError: an empty folder, or IDX images of another size.
        idx.IdxError: for every fault of an IDX file.
        OSError: where a file cannot be read.
    """
    tasks: list[Task] = []
    chunks = 0
    pictures: list[Path] = []

    def add(files: tuple[Path, ...], counts: tuple[int, ...], is_idx: bool, first: int = 0) -> None:
        nonlocal chunks
        tasks.append(Task(chunks, counts, files, is_idx, first))
        chunks += len(counts)

    def add_pictures() -> None:
        for some in _together(pictures):
            add(some, (len(some),), is_idx=False)
        pictures.clear()

    for path in paths:
        if path.is_dir():
            pictures += _in_folder(path)
        elif _is_picture(path):
            pictures.append(path)
        else:
            add_pictures()
            counts, is_gzipped = _idx_chunks(path, shape)
            if is_gzipped:  # can only be read from its start
                add((path,), counts, is_idx=True)
            else:
                for number, count in enumerate(counts):
                    add((path,), (count,), is_idx=True, first=number * counts[0])
    add_pictures()
    return tasks


def read(task: Task) -> Iterator[Chunk]:
    """The chunks of a task.

    Raises:
        idx.IdxError, OSError: where a file changed since it was planned.
    """
    if task.is_idx:
        yield from _read_idx(task)
    else:
        yield _read_pictures(task)


def _read_idx(task: Task) -> Iterator[Chunk]:
    (file,) = task.files
    with idx.IdxReader(file, 3, 4) as reader:
        if task.first:
            reader.skip(task.first)
        first = task.first
        for number, count in enumerate(task.counts, task.number):
            images = reader.read(count)
            images = images[..., 0] if images.shape[3:] == (1,) else images
            keys = [{"file": str(file), "index": index} for index in range(first, first + count)]
            yield Chunk(number, keys, images)
            first += count


def _read_pictures(task: Task) -> Chunk:
    images: list[bytes] = []
    errors: dict[int, str] = {}
    for place, file in enumerate(task.files):
        try:
            content = file.read_bytes()
            image_headers.check_sizes(np.array([content], object))
        except OSError as error:
            errors[place] = error.strerror or str(error)
        except ServingError as error:
            errors[place] = error.message
        else:
            images.append(content)
    return Chunk(task.number, [{"file": str(file)} for file in task.files], images, errors)


def _together(files: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """Pictures that are in memory at a time."""
    some: list[Path] = []
    size_bytes = 0
    for file in files:
        own_bytes = file.stat().st_size
        if some and (len(some) == PICTURES or size_bytes + own_bytes > PICTURE_BYTES):
            yield tuple(some)
            some, size_bytes = [], 0
        some.append(file)
        size_bytes += own_bytes
    if some:
        yield tuple(some)


def _in_folder(folder: Path) -> list[Path]:
    found = picture_files.in_folder(folder)
    if not found:
        raise InputError(
            f"{folder}: no {picture_files.KINDS} file in this folder; IDX files are named one by one"
        )
    return found


def _is_picture(path: Path) -> bool:
    with path.open("rb") as file:
        begin = file.read(4)
    return begin.startswith(_MAGIC) or picture_files.is_picture(path)


def _idx_chunks(path: Path, shape: ImageShape) -> tuple[tuple[int, ...], bool]:
    """Images in each chunk of an IDX file, and whether it is gzipped."""
    with path.open("rb") as file:
        is_gzipped = file.read(2) == _GZIP
    with idx.IdxReader(path, 3, 4) as reader:
        found = ImageShape(*reader.shape[1:])
        if found != shape:
            raise InputError(f"{path}: images of {found}, but the model takes {shape}")
        chunk = min(IMAGES, max(1, idx.BUFFER_BYTES // math.prod(shape)))
        while is_gzipped and len(reader.read(chunk)):
            pass
        count = reader.shape[0]
    whole, rest = divmod(count, chunk)
    return (chunk,) * whole + ((rest,) if rest else ()), is_gzipped
