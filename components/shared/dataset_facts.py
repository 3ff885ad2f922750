"""The facts of a whole data set: those of each split, and what the splits have to do with each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from components.shared.image_facts import SplitFacts

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
