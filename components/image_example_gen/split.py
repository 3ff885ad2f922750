"""Which example goes where: by a hash of its content alone, never by its place in a file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

_HASH_BYTES = 8

# A place in the order of all examples: the content hash, then the index in the file, which decides only
# between examples of the same content.
Place = tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """Some examples on their way through Beam, as arrays: thousands of times fewer elements than examples.

    Their images stay in the file: whoever writes them reads them there, at the indices.

    Attributes:
        labels: uint8 [n].
        hashes: uint64 [n], see content_hashes.
        indices: int64 [n], places in the file.
    """

    labels: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, which: NDArray) -> Batch:
        """The examples at a mask, or at indices in their order."""
        return Batch(self.labels[which], self.hashes[which], self.indices[which])

    @classmethod
    def concatenate(cls, batches: Iterable[Batch]) -> Batch:
        """All examples of at least one batch."""
        every = list(batches)
        return cls(
            np.concatenate([batch.labels for batch in every]),
            np.concatenate([batch.hashes for batch in every]),
            np.concatenate([batch.indices for batch in every]),
        )


def content_hashes(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """BLAKE2b with 64 bits of each image's bytes and its label byte: uint64 [n]."""
    rows = np.concatenate(
        [images.reshape(len(images), math.prod(images.shape[1:])), labels[:, None]], axis=1
    )
    digests = [hashlib.blake2b(row, digest_size=_HASH_BYTES).digest() for row in rows]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def before(batch: Batch, cutoff: Place) -> NDArray[np.bool_]:
    """Which examples come before a place: bool [n]."""
    cut_hash, cut_index = np.uint64(cutoff[0]), np.int64(cutoff[1])
    return (batch.hashes < cut_hash) | ((batch.hashes == cut_hash) & (batch.indices < cut_index))


class Cutoff(beam.CombineFn):
    """The place of the `count`-th example (counted from 0) in the order of all: `count` come before it.

    An accumulator keeps no more than the `count` + 1 smallest places, 16 bytes each, and what has come
    in since it was last made smaller.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self._keep = count + 1

    def create_accumulator(self) -> NDArray[np.uint64]:
        return np.empty((2, 0), np.uint64)

    def add_input(self, accumulator: NDArray[np.uint64], element: Batch) -> NDArray[np.uint64]:
        return self.merge_accumulators(
            [accumulator, np.stack([element.hashes, element.indices.astype(np.uint64)])]
        )

    def merge_accumulators(self, accumulators: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
        places = np.concatenate(list(accumulators), axis=1)
        if places.shape[1] > 2 * self._keep:
            return self._smallest(places)
        return places

    def extract_output(self, accumulator: NDArray[np.uint64]) -> Place:
        last = self._smallest(accumulator)[:, -1]
        return int(last[0]), int(last[1])

    def _smallest(self, places: NDArray[np.uint64]) -> NDArray[np.uint64]:
        order = np.lexsort((places[1], places[0]))
        return places[:, order[: self._keep]]
