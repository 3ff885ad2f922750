"""Writes IDX files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_UINT8 = 0x08


def write(path: Path, shape: tuple[int, ...], parts: Iterable[NDArray[np.uint8]]) -> None:
    """Write uint8 values, part after part.

    Args:
        path: where to.
        shape: of all parts together.
        parts: joined along the first axis.

    Raises:
        ValueError: where they do not make up the shape.
    """
    with path.open("wb") as file:
        file.write(bytes((0, 0, _UINT8, len(shape))) + np.array(shape, ">u4").tobytes())
        count = 0
        for part in parts:
            if part.dtype != np.uint8 or part.shape[1:] != shape[1:]:
                raise ValueError(f"uint8 {shape[1:]} expected, not {part.dtype} {part.shape[1:]}")
            file.write(np.ascontiguousarray(part).tobytes())
            count += len(part)
    if count != shape[0]:
        raise ValueError(f"{count} items, {shape[0]} expected")
