"""What a model was trained on, and how sure of itself it is: a file of the version that the Pusher writes.

It goes wherever the model goes, a volume or a bucket, so whoever has the model can tell whether requests
look like its training data, without the run that made it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from components.shared import answers, image_facts
from components.shared.dataset_facts import FACTS_FILE, DatasetFacts, FactsError
from components.shared.image_facts import Histogram
from components.shared.model_store import TRAINING_FACTS
from trainer import features


@dataclass(frozen=True)
class TrainingFacts:
    """A model's training in numbers.

    Attributes:
        images: of each fact of the training images, how many are in each of image_facts.BINS bins.
        labels: how many training examples each class has, [C].
        confidence: of the answers to the test split, how many have their highest probability in each bin.
    """

    images: Mapping[str, Histogram]
    labels: Histogram
    confidence: Histogram

    @classmethod
    def gather(cls, data_blessing: Path, evaluation: Path) -> Self:
        """From DataGate's facts of the data and the Evaluator's answers.

        Raises:
            FactsError: where the folder of the first holds none.
        """
        train = DatasetFacts.from_json((data_blessing / FACTS_FILE).read_text()).splits[features.TRAIN]
        confidence = np.zeros(image_facts.BINS, np.int64)
        for some in answers.confidences(evaluation):
            confidence += image_facts.unit_histogram(some)
        images = {name: np.array(counts) for name, counts in train.images.items()}
        return cls(images, np.array(train.labels), confidence)

    @classmethod
    def read(cls, version: Path) -> Self:
        """Those of a version folder.

        Raises:
            FactsError: where it has none, or what is there is none.
        """
        path = version / TRAINING_FACTS
        if not path.is_file():
            raise FactsError(f"{version} does not say what it was trained on: it has no {TRAINING_FACTS}")
        try:
            values = json.loads(path.read_text())
            images = {name: np.array(counts, np.int64) for name, counts in values["images"].items()}
            return cls(images, *(np.array(values[name], np.int64) for name in ("labels", "confidence")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FactsError(f"{path} holds no facts: {type(error).__name__}: {error}") from None

    def to_json(self) -> str:
        """The content of the file."""
        images = {name: counts.tolist() for name, counts in self.images.items()}
        return json.dumps(
            {"images": images, "labels": self.labels.tolist(), "confidence": self.confidence.tolist()}
        )
