"""Arrays of pixels and labels, as IDX, NPZ and CIFAR have them, to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.image_example_gen.sources.base import Orient, Pictures, SourceError, oriented


def with_channels(images: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """uint8 [n, H, W] or [n, H, W, C] as [n, H, W, C]; C is 1 or 3.

    Raises:
        SourceError: for other shapes and dtypes, and images of no pixel.
    """
    if images.dtype != np.uint8:
        raise SourceError(path, f"images of dtype {images.dtype}: they must be uint8, 0 … 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not all(images.shape[1:]):
        shape = " x ".join(map(str, images.shape))
        raise SourceError(path, f"images of shape {shape}: it must be N x H x W or N x H x W x 1 or 3")
    return images


def flat_labels(labels: NDArray, path: Path) -> NDArray[np.int64]:
    """Integers [n] or [n, 1] as int64 [n].

    Raises:
        SourceError: for anything else.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        shape = " x ".join(map(str, labels.shape))
        raise SourceError(
            path, f"labels of dtype {labels.dtype} and shape {shape}: they must be integers, N"
        )
    return labels.astype(np.int64)


def oriented_shape(shape: Sequence[int], orient: Orient) -> tuple[int, int, int]:
    """[H, W, C] after turning."""
    height, width, channels = shape
    return (
        (width, height, channels)
        if orient in ("transpose", "rotate90", "rotate270")
        else (height, width, channels)
    )


def to_pictures(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    file: str,
    first: int,
    place: int,
    orient: Orient,
    at: NDArray[np.int64] | None = None,
) -> Pictures:
    """A batch from uint8 [n, H, W, C].

    Args:
        images: pixels.
        labels: from 0, [n].
        file: for the ids.
        first: place of the first image in the file.
        place: its place within the part.
        orient: how to turn them.
        at: only those at these places within the part, ascending; None: all.
    """
    places = np.arange(place, place + len(labels))
    if at is not None:
        low, high = np.searchsorted(at, (place, place + len(labels)))
        chosen = at[low:high] - place
        images, labels, places = images[chosen], labels[chosen], places[chosen]
    turned = oriented(images, orient)
    ids = [f"{file}#{first + number - place}" for number in places.tolist()]
    return Pictures([image.tobytes() for image in turned], labels, ids, places)
