"""How the splits of a source become those of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from components.image_example_gen.sources.base import SourceError
from trainer import features

VALIDATION_SHARE, TEST_SHARE = 12, 6
"""One in so many training examples is set aside where a source lacks the split: 5,000 of MNIST's 60,000."""


@dataclass(frozen=True)
class Splitting:
    """How the splits of a source become those of the pipeline.

    Attributes:
        sizes: examples in each split of the pipeline.
        cut: how many examples for training, by content hash, become another split: the first so many this
            one, the next so many that one.
    """

    sizes: Mapping[str, int]
    cut: Mapping[str, int]


def splitting(found: Mapping[str, int], folder: str) -> Splitting:
    """What the examples of a folder's source, by split, come to.

    Raises:
        SourceError: where there are too few to set any aside.
    """
    train = found.get(features.TRAIN, 0)
    shares = {features.VALIDATION: VALIDATION_SHARE, features.TEST: TEST_SHARE}
    cut = {split: train // share for split, share in shares.items() if not found.get(split)}
    if train < VALIDATION_SHARE:
        raise SourceError(
            folder,
            f"{train} examples: at least {VALIDATION_SHARE} are needed for training, one to validate",
        )
    sizes = {
        features.TRAIN: train - sum(cut.values()),
        **{split: cut[split] if split in cut else found[split] for split in shares},
    }
    return Splitting(sizes, cut)
