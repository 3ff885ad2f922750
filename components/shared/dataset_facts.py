"""The facts of a whole data set: those of each split, and what the splits have to do with each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from components.shared import agreement, image_facts
from components.shared.examples import read_split
from components.shared.image_facts import SplitFacts
from trainer import features

FACTS_FILE = "facts.json"


class FactsError(ValueError):
    """A file that is no facts.json of this project."""


@dataclass(frozen=True)
class DatasetFacts:
    """A data set in numbers.

    Attributes:
        dataset: its name.
        fingerprint: SHA-256 of the files that it comes from.
        splits: facts by split.
        agreements: share of right answers of the nearest class mean, by the split that the means are from
            and the split that is asked about: see `agreement`.
        leaked: examples whose image is in `train` too, by split.
    """

    dataset: str
    fingerprint: str
    splits: Mapping[str, SplitFacts]
    agreements: Mapping[str, Mapping[str, float]]
    leaked: Mapping[str, int]

    def to_json(self) -> str:
        """The content of FACTS_FILE; equal data give equal bytes."""
        return json.dumps(
            {**vars(self), "splits": {name: split.as_json() for name, split in self.splits.items()}}
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` made.

        Raises:
            FactsError: where it did not.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            splits = {name: SplitFacts.of_json(split) for name, split in values["splits"].items()}
            return cls(**{**values, "splits": splits})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FactsError(f"not the facts of a data set: {type(error).__name__}: {error}") from None


def survey(
    folders: Mapping[str, str], size: tuple[int, int], num_classes: int, dataset: str, fingerprint: str
) -> DatasetFacts:
    """Read all examples once.

    Memory holds one batch, 8 bytes an image and agreement.SAMPLE images of each split.

    Args:
        folders: of TFRecord files, by split.
        size: height and width of an image, in pixels.
        num_classes: labels are below this.
        dataset: its name, for the result.
        fingerprint: of its files, for the result.
    """
    splits, samples, hashes = {}, {}, {}
    for split, folder in folders.items():
        splits[split], samples[split], hashes[split] = _survey_split(folder, size, num_classes)
    return DatasetFacts(
        dataset=dataset,
        fingerprint=fingerprint,
        splits=splits,
        agreements=agreement.agreements(samples),
        leaked={
            split: int(np.isin(found, hashes[features.TRAIN]).sum())
            for split, found in hashes.items()
            if split != features.TRAIN
        },
    )


def _survey_split(
    folder: str, size: tuple[int, int], num_classes: int
) -> tuple[SplitFacts, agreement.Sample, NDArray[np.uint64]]:
    collector = image_facts.Collector(num_classes)
    hashes, images, labels = [], [np.empty((0, *size), np.uint8)], [np.empty(0, np.int64)]
    sampled = 0
    for batch, batch_labels, good in read_split(folder, *size):
        collector.add(batch, batch_labels, int((~good).sum()))
        hashes.append(image_facts.image_hashes(batch))
        if sampled < agreement.SAMPLE:
            of_images = batch_labels[good]
            usable = (of_images >= 0) & (of_images < num_classes)
            images.append(batch[usable][: agreement.SAMPLE - sampled])
            labels.append(of_images[usable][: agreement.SAMPLE - sampled])
            sampled += len(labels[-1])
    sample = agreement.Sample(np.concatenate(images), np.concatenate(labels))
    return collector.facts(), sample, np.concatenate([np.empty(0, np.uint64), *hashes])
