"""Which example goes where: by a hash of its content alone, never by its place in a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
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

    Runners hold all of them several times over, so an example is 12 bytes here. Image, label and id stay in
    the source: whoever writes them reads them there, at the indices.

    Attributes:
        hashes: uint64 [n], see content_hashes.
        indices: uint32 [n], places among all examples of the source's split; uint64 where one is higher.
    """

    hashes: NDArray[np.uint64]
    indices: NDArray[np.unsignedinteger]

    def __len__(self) -> int:
        return len(self.hashes)

    def select(self, which: NDArray) -> Batch:
        """The examples at a mask, or at indices in their order."""
        return Batch(self.hashes[which], self.indices[which])

    @classmethod
    def of(cls, hashes: NDArray[np.uint64], indices: NDArray[np.int64]) -> Batch:
        """Examples at any places."""
        small = not len(indices) or int(indices.max()) <= np.iinfo(np.uint32).max
        return cls(hashes, indices.astype(np.uint32 if small else np.uint64))

    @classmethod
    def concatenate(cls, batches: Iterable[Batch]) -> Batch:
        """All examples of at least one batch."""
        every = list(batches)
        return cls(
            np.concatenate([batch.hashes for batch in every]),
            np.concatenate([batch.indices for batch in every]),
        )


def content_hashes(images: Sequence[bytes], labels: NDArray[np.int64]) -> NDArray[np.uint64]:
    """BLAKE2b with 64 bits of each image's bytes and its label's, as few as the label needs: uint64 [n]."""
    suffixes = {label: _label_bytes(label) for label in np.unique(labels).tolist()}
    digests = [
        hashlib.blake2b(image + suffixes[label], digest_size=_HASH_BYTES).digest()
        for image, label in zip(images, labels.tolist(), strict=True)
    ]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _label_bytes(label: int) -> bytes:
    return label.to_bytes(max(1, (label.bit_length() + 7) // 8), "little")


def before(batch: Batch, cutoff: Place) -> NDArray[np.bool_]:
    """Which examples come before a place: bool [n]."""
    cut_hash, cut_index = np.uint64(cutoff[0]), np.uint64(cutoff[1])
    return (batch.hashes < cut_hash) | ((batch.hashes == cut_hash) & (batch.indices < cut_index))


class Cutoffs(beam.CombineFn):
    """The places of some examples in the order of all: for each count, so many come before its place.

    An accumulator keeps no more than the highest count + 1 smallest places, 16 bytes each, and what has
    come in since it was last made smaller.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__()
        self._counts = list(counts)
        self._keep = max(counts) + 1

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

    def extract_output(self, accumulator: NDArray[np.uint64]) -> list[Place]:
        places = self._smallest(accumulator)
        return [(int(places[0, count]), int(places[1, count])) for count in self._counts]

    def _smallest(self, places: NDArray[np.uint64]) -> NDArray[np.uint64]:
        order = np.lexsort((places[1], places[0]))
        return places[:, order[: self._keep]]
