"""Two IDX files that belong together: images, and the label of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.image_example_gen.sources.base import MAX_LABEL
from components.image_example_gen.sources.idx import IdxError, IdxReader, UInt8

_INSPECTED_BYTES = 1 << 20  # at a time: stays in the processor's cache


def stream(
    images_path: Path | str,
    labels_path: Path | str,
    batch: int,
    num_classes: int | None,
    part: range | None = None,
) -> Iterator[tuple[UInt8, NDArray]]:
    """Stream images and labels in step: uint8 [n, H, W] or [n, H, W, C], and integers [n]; n ≤ `batch`.

    Args:
        images_path: IDX file of rank 3 or 4.
        labels_path: IDX file of rank 1, or of QMNIST's kind.
        batch: examples at a time; fewer where they would not fit into idx.BUFFER_BYTES.
        num_classes: labels must be below it; None: any label.
        part: these examples alone, of files that are not gzipped; None: all.

    Raises:
        IdxError: for every fault of a file, for counts that differ, for a label out of range.
    """
    with IdxReader(images_path, 3, 4) as images, IdxReader(labels_path, 1, 2, labels=True) as labels:
        for pair, _ in _in_step(images, labels, batch, num_classes, part):
            yield pair


def _in_step(
    images: IdxReader,
    labels: IdxReader,
    batch: int,
    num_classes: int | None,
    part: range | None = None,
) -> Iterator[tuple[tuple[UInt8, NDArray], int]]:
    """Pairs of images and labels, each with the index of its first example."""
    if images.shape[0] != labels.shape[0]:
        reason = f"{labels.shape[0]} labels, but {images.path.name} has {images.shape[0]} images"
        raise IdxError(labels.path, 4, reason)
    first, stop = (part.start, part.stop) if part else (0, images.shape[0])
    if first:
        images.skip(first)
        labels.skip(first)
    while first < stop:
        image_batch = images.read(min(batch, stop - first))
        label_batch = labels.read(len(image_batch))
        if label_batch.ndim > 1:  # QMNIST's: class, writer and so on
            label_batch = label_batch[:, 0]
        if num_classes is not None and label_batch.max() >= num_classes:
            at = int(np.argmax(label_batch >= num_classes))
            offset = labels.data_offset + (first + at) * labels.row_bytes
            raise IdxError(
                labels.path, offset, f"label {label_batch[at]} is not in the range 0…{num_classes - 1}"
            )
        yield (image_batch, label_batch), first
        first += len(label_batch)


@dataclass(frozen=True)
class Pair:
    """One images file and its labels.

    Attributes:
        shape: of the images file.
        digests: SHA-256 of the two files' contents.
        counts: how many of each label, to the highest.
        first_offsets: where in the labels file each label first occurs, or -1.
    """

    shape: tuple[int, ...]
    digests: bytes
    counts: NDArray[np.int64]
    first_offsets: NDArray[np.int64]


def inspect_pair(images_path: Path, labels_path: Path, size: tuple[int, ...] | None = None) -> Pair:
    """Read a pair of files once and check everything about it.

    Args:
        images_path: IDX file of rank 3 or 4.
        labels_path: IDX file of rank 1, or of QMNIST's kind.
        size: what the images' dimensions must be; None: any.

    Raises:
        IdxError: for every fault.
    """
    counts, first_offsets = np.zeros(0, np.int64), np.full(0, -1, np.int64)
    with (
        IdxReader(images_path, 3, 4, hashed=True) as images,
        IdxReader(labels_path, 1, 2, hashed=True, labels=True) as labels,
    ):
        if images.shape[3:] not in ((), (1,), (3,)):
            raise IdxError(images_path, 16, f"{images.shape[3]} channels: there must be 1 or 3")
        if size is not None and images.shape[1:] != size:
            found, wanted = ("x".join(map(str, s)) for s in (images.shape[1:], size))
            raise IdxError(images_path, 8, f"images of {found}, but those for training are {wanted}")
        batch = max(1, _INSPECTED_BYTES // math.prod(images.shape[1:]))
        for (_, label_batch), first in _in_step(images, labels, batch, MAX_LABEL):
            if label_batch.min() < 0:
                at = int(label_batch.argmin())
                offset = labels.data_offset + (first + at) * labels.row_bytes
                raise IdxError(labels_path, offset, f"label {label_batch[at]} is negative")
            found_counts = np.bincount(label_batch.astype(np.int64))
            if len(found_counts) > len(counts):
                more = len(found_counts) - len(counts)
                counts = np.pad(counts, (0, more))
                first_offsets = np.pad(first_offsets, (0, more), constant_values=-1)
            counts[: len(found_counts)] += found_counts
            if (first_offsets < 0).any():
                seen, at_all = np.unique(label_batch, return_index=True)
                new = first_offsets[seen] < 0
                where = labels.data_offset + (first + at_all[new]) * labels.row_bytes
                first_offsets[seen[new]] = where
        assert images.sha256 is not None
        assert labels.sha256 is not None
        digests = images.sha256.digest() + labels.sha256.digest()
        return Pair(images.shape, digests, counts, first_offsets)


def count_classes(labels_path: Path, pair: Pair, offset: int = 0) -> int:
    """How many classes a pair for training has; the lowest label is `offset`.

    Raises:
        IdxError: for a class between others that has no example.
    """
    present = np.flatnonzero(pair.counts)
    highest = int(present[-1])
    absent = sorted(set(range(offset, highest)) - set(present.tolist()))
    if absent:
        gaps = np.split(absent, np.flatnonzero(np.diff(absent) > 1) + 1)
        names = ", ".join(f"{gap[0]}…{gap[-1]}" if len(gap) > 1 else str(gap[0]) for gap in gaps)
        reason = f"label {highest} is probably wrong: no training example of {names}; if not, set "
        raise IdxError(labels_path, int(pair.first_offsets[highest]), reason + "data.num_classes")
    return highest + 1 - offset
