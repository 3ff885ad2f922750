"""Pictures that are files of their own: how sources of such give and read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.image_example_gen.sources.base import Part, Pictures, SourceError, in_batches

_PART = 4096  # files


def parts(files: Mapping[str, Iterable[tuple[str, int]]]) -> Iterator[Part]:
    """Some thousand files each, from path within the data set's folder and label of all, by split."""
    for split, of_split in files.items():
        left, first = iter(of_split), 0
        while some := tuple(islice(left, _PART)):
            yield Part(split, first, len(some), some)
            first += len(some)


def read(folder: Path, part: Part, at: NDArray[np.int64] | None = None) -> Iterator[Pictures]:
    """See base.Source.

    Raises:
        SourceError: where a file cannot be read.
    """
    files: tuple[tuple[str, int], ...] = part.what
    places = range(part.count) if at is None else at.tolist()
    return in_batches(
        (_content(folder, files[place][0]), files[place][1], files[place][0], place) for place in places
    )


def _content(folder: Path, name: str) -> bytes:
    try:
        # A Path for each of a million files, and a buffer, would take longer than to read them.
        with open(f"{folder}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()
    except OSError as error:
        raise SourceError(folder / name, error.strerror or str(error)) from None
