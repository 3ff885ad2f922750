"""The facts of a data set, on Beam: one element is a file of examples, which a worker reads once.

What travels between workers: counts, the content hashes in a fixed number of buckets, and a sample of each
split, the images with the smallest hashes. So the facts are the same however the examples are spread, and
no worker holds more than a bucket.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from components.shared import agreement, examples, image_facts
from components.shared.dataset_facts import DatasetFacts
from components.shared.image_facts import SplitFacts
from trainer import features
from trainer.features import ImageInput

_HASHES = "hashes"  # the tag of a second output
_BUCKET_BITS = 6
_BATCH_BYTES = 1 << 24  # of images that are decoded at once
_SAMPLE_BYTES = 1 << 26  # of the images that are kept of a split


@dataclass(frozen=True)
class Sample:
    """Images of a split: those with the smallest content hashes.

    Attributes:
        hashes: uint64 [n], ascending.
        images: uint8 [n, H, W], with colours [n, H, W, 3].
        labels: int64 [n], each of a class.
    """

    hashes: NDArray[np.uint64]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def joined(self, other: Sample, most: int) -> Sample:
        """Those of both with the smallest hashes, of equal ones those with the smaller label."""
        hashes = np.concatenate([self.hashes, other.hashes])
        labels = np.concatenate([self.labels, other.labels])
        order = np.lexsort((labels, hashes))[:most]
        images = np.concatenate([self.images, other.images])
        return Sample(hashes[order], images[order], labels[order])


@dataclass(frozen=True)
class Part:
    """Some examples of a split."""

    facts: SplitFacts
    sample: Sample


@dataclass(frozen=True)
class Survey:
    """All that was found.

    Attributes:
        parts: by split.
        leaked: examples whose image is in `train` too, by split.
    """

    parts: Mapping[str, Part]
    leaked: Mapping[str, int]


class Look(beam.DoFn):
    """A split and the path of one of its files in; a Part by split out, and buckets of hashes."""

    def __init__(self, given: ImageInput, num_classes: int) -> None:
        """Know how the examples hold images; labels are below `num_classes`."""
        super().__init__()
        self._given, self._num_classes = given, num_classes
        self._most = sample_size(given)

    def process(self, element: tuple[str, str]) -> Iterator[tuple[str, Part] | beam.pvalue.TaggedOutput]:
        """Read the file once."""
        split, path = element
        collector = _collector(self._num_classes, self._given)
        sample = _empty(self._given)
        for some in examples.read([path], _batch(self._given)):
            images, good = examples.decode(some.raw, self._given)
            collector.add(images, some.labels, int((~good).sum()))
            hashes, labels = image_facts.image_hashes(images), some.labels[good]
            of_class = (labels >= 0) & (labels < self._num_classes)
            found = Sample(hashes[of_class], images[of_class], labels[of_class])
            if len(sample.hashes) == self._most:  # most of what comes later is no candidate
                small = found.hashes <= sample.hashes[-1]
                found = Sample(found.hashes[small], found.images[small], found.labels[small])
            sample = sample.joined(found, self._most)
            numbers = (hashes >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64)
            for number in np.unique(numbers).tolist():
                yield beam.pvalue.TaggedOutput(_HASHES, (number, (split, hashes[numbers == number])))
        yield split, Part(collector.facts(), sample)


def sample_size(given: ImageInput) -> int:
    """How many images of a split are kept to learn class means from."""
    return min(agreement.SAMPLE, max(1, _SAMPLE_BYTES // math.prod(given.shape)))


def run(
    pipeline: beam.Pipeline, folders: Mapping[str, str], given: ImageInput, num_classes: int
) -> beam.PCollection[Survey]:
    """The transform.

    Args:
        pipeline: to add it to.
        folders: of TFRecord files, by split.
        given: how the examples hold images.
        num_classes: labels are below this.

    Returns:
        One Survey.
    """
    paths = [(split, path) for split, folder in folders.items() for path in examples.files(folder)]
    looked = (
        pipeline
        | "Files" >> beam.Create(paths)
        | "Spread" >> beam.Reshuffle()
        | "Look" >> beam.ParDo(Look(given, num_classes)).with_outputs(_HASHES, main="parts")
    )
    parts = looked.parts | "Join" >> beam.CombinePerKey(_join, sample_size(given))
    leaked = (
        looked[_HASHES]
        | "Buckets" >> beam.GroupByKey()
        | "Compare" >> beam.FlatMap(_leaked)
        | "Count" >> beam.CombinePerKey(sum)
    )
    return (
        pipeline
        | "One" >> beam.Create([list(folders)])
        | "Survey"
        >> beam.Map(_survey, beam.pvalue.AsDict(parts), beam.pvalue.AsDict(leaked), given, num_classes)
    )


def dataset_facts(found: Survey, dataset: str, fingerprint: str) -> DatasetFacts:
    """The facts of the data set.

    Args:
        found: of all its splits.
        dataset: its name.
        fingerprint: of its files.
    """
    samples = {
        split: agreement.Sample(part.sample.images, part.sample.labels)
        for split, part in found.parts.items()
    }
    return DatasetFacts(
        dataset=dataset,
        fingerprint=fingerprint,
        splits={split: part.facts for split, part in found.parts.items()},
        agreements=agreement.agreements(samples),
        leaked=found.leaked,
    )


def _join(parts: Iterable[Part], most: int) -> Part:
    return reduce(
        lambda one, other: Part(one.facts + other.facts, one.sample.joined(other.sample, most)), parts
    )


def _leaked(bucket: tuple[int, Iterable[tuple[str, NDArray[np.uint64]]]]) -> Iterator[tuple[str, int]]:
    by_split: dict[str, list[NDArray[np.uint64]]] = {}
    for split, hashes in bucket[1]:
        by_split.setdefault(split, []).append(hashes)
    train = np.concatenate(by_split.pop(features.TRAIN, [np.empty(0, np.uint64)]))
    for split, parts in by_split.items():
        yield split, int(np.isin(np.concatenate(parts), train).sum())


def _survey(
    splits: list[str],
    parts: Mapping[str, Part],
    leaked: Mapping[str, int],
    given: ImageInput,
    num_classes: int,
) -> Survey:
    nothing = Part(_collector(num_classes, given).facts(), _empty(given))
    return Survey(
        parts={split: parts.get(split, nothing) for split in splits},
        leaked={split: leaked.get(split, 0) for split in splits if split != features.TRAIN},
    )


def _collector(num_classes: int, given: ImageInput) -> image_facts.Collector:
    return image_facts.Collector(num_classes, colour=given.shape.channels == 3)


def _empty(given: ImageInput) -> Sample:
    images, _ = examples.decode(np.empty(0, object), given)
    return Sample(np.empty(0, np.uint64), images, np.empty(0, np.int64))


def _batch(given: ImageInput) -> int:
    """Examples at a time: of large images only as many as have so many bytes together."""
    return max(1, min(examples.BATCH, _BATCH_BYTES // math.prod(given.shape)))
