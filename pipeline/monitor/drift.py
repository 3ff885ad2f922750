"""Do requests still look like the training data? A server's log compared with that of its model.

Compared are the facts of the images (see components/shared/image_facts.py) and the predicted classes with
those of the training split, and the model's confidence with its confidence on the test split. As at the
DataGate, a distance counts only as far as chance does not explain it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.shared import classifier, distance, image_facts
from components.shared.dataset_facts import FactsError
from components.shared.image_facts import median
from components.shared.training_facts import TrainingFacts
from pipeline import product
from pipeline.errors import UserError
from pipeline.monitor import request_log

CLASSES, CONFIDENCE = "predicted_classes", "confidence"


class MonitorError(UserError):
    """Nothing to compare, or nothing to compare it with: one line for a person."""


@dataclass(frozen=True)
class Limits:
    """Distances, beyond what chance explains, that are drift."""

    max_image_distance: float = 0.1
    max_class_distance: float = 0.1
    max_confidence_distance: float = 0.1


@dataclass(frozen=True)
class Expected:
    """What a model was trained on, and how sure of itself it is.

    Attributes:
        model: name of the model.
        version: that it became.
        reader: makes of a request what the network got of it.
        histograms: counts in facts.BINS bins: of each image fact, and of CONFIDENCE.
        classes: how many of each class, [C].
        names: of the classes, by label.
    """

    model: str
    version: int
    reader: request_log.Reader
    histograms: Mapping[str, NDArray[np.int64]]
    classes: NDArray[np.int64]
    names: tuple[str, ...]


@dataclass
class Observed:
    """What requests were like.

    Attributes:
        requests: how many were looked at.
        images: how many images these held.
        elsewhere: requests to other versions or models, which were left out.
        damage: what could not be read.
        histograms: as Expected's.
        classes: how many of each predicted class, [C].
    """

    histograms: dict[str, NDArray[np.int64]]
    classes: NDArray[np.int64]
    requests: int = 0
    images: int = 0
    elsewhere: int = 0
    damage: request_log.Damage = field(default_factory=request_log.Damage)


@dataclass(frozen=True)
class Comparison:
    """One fact of the requests compared with that of the training.

    Attributes:
        fact: its name.
        trained: median, or the share of the class that is furthest apart.
        requested: likewise.
        about: the class that these two are about; None for medians.
        distance: L-infinity between the two distributions, 0 … 1.
        chance: as much of it as chance explains.
        limit: how much more is drift.
    """

    fact: str
    trained: float
    requested: float
    about: int | None
    distance: float
    chance: float
    limit: float

    @property
    def drifted(self) -> bool:
        """Whether this is drift."""
        return self.distance - self.chance > self.limit


@dataclass(frozen=True)
class Findings:
    """All comparisons, of what with what."""

    expected: Expected
    observed: Observed
    comparisons: tuple[Comparison, ...]

    @property
    def drifted(self) -> bool:
        """Whether anything drifted."""
        return any(comparison.drifted for comparison in self.comparisons)

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        return {
            "drift": self.drifted,
            "model": self.expected.model,
            "version": self.expected.version,
            "requests": self.observed.requests,
            "images": self.observed.images,
            "requests_elsewhere": self.observed.elsewhere,
            "damaged_files": self.observed.damage.files,
            "damaged_records": self.observed.damage.records,
            "facts": [asdict(each) | {"drift": each.drifted} for each in self.comparisons],
        }


def expected(model: Path) -> Expected:
    """What a pushed model was trained on: its version folder says it, wherever it lies.

    Args:
        model: the version folder, or the folder of the versions, of which the newest counts.

    Raises:
        ModelError: where there is no model, or a broken one.
        MonitorError: where it is no version, or does not say what it was trained on.
    """
    version = classifier.find(model).absolute()
    if not version.name.isdecimal():
        raise MonitorError(f"{version} is no version of a model: its name is no number")
    try:
        facts = TrainingFacts.read(version)
    except FactsError as error:
        raise MonitorError(f"{error}; what `{product.NAME} run` pushes has them") from None
    if not facts.confidence.any():
        raise MonitorError(f"{version}: of its test split no answers are known; push it again")
    return Expected(
        model=version.parent.name,
        version=int(version.name),
        reader=request_log.Reader(classifier.load(version), classifier.image_shape(version)),
        histograms={**facts.images, CONFIDENCE: facts.confidence},
        classes=facts.labels,
        names=_names(version, len(facts.labels)),
    )


def _names(model: Path, classes: int) -> tuple[str, ...]:
    return tuple(classifier.load(model).class_names() or map(str, range(classes)))


def observe(folder: Path, expected: Expected, any_version: bool = False) -> Observed:
    """Statistics of the requests in a log.

    Args:
        folder: what `mnist serve --log-requests` wrote.
        expected: of the model that these should be for; requests to others are counted and left out.
        any_version: take requests to other versions of the model too.

    Raises:
        MonitorError: where there is no log, or no request for the model in it.
    """
    files = request_log.find_files(folder)
    if not files:
        raise MonitorError(
            f"{folder}: no request log (*{request_log.SUFFIX}) in this folder; a server completes a "
            "file after five minutes, and at its end"
        )
    seen = Observed(
        {name: np.zeros(image_facts.BINS, np.int64) for name in expected.histograms},
        np.zeros(len(expected.classes), np.int64),
    )
    models: Counter[str] = Counter()
    for request in request_log.read(files, expected.reader, seen.damage):
        models[request.model] += 1
        if request.model == expected.model and (any_version or request.version == expected.version):
            _add(seen, request)
        else:
            seen.elsewhere += 1
    if not seen.requests:
        raise MonitorError(_no_request(folder, expected, any_version, models))
    return seen


def _no_request(folder: Path, expected: Expected, any_version: bool, models: Counter[str]) -> str:
    """Why nothing in a log is for the model, and what would help."""
    version = "any version" if any_version else f"version {expected.version}"
    message = f"{folder}: no request to {version} of model {expected.model!r}"
    if others := models[expected.model]:
        return f"{message}; {others} to other versions, which --any-version takes too"
    if models:
        named = ", ".join(f"{count} to {name!r}" for name, count in sorted(models.items()))
        return (
            f"{message}; {named}: run the server with --model-name {expected.model}, "
            "or name another --model"
        )
    return f"{message}, and none to others"


def compare(expected: Expected, observed: Observed, limits: Limits) -> Findings:
    """The facts of the requests compared with those of the training, without facts that no request has."""
    found = []
    for fact, histogram in expected.histograms.items():
        seen = observed.histograms[fact]
        if seen.sum():
            apart = distance.of_histograms(histogram, seen)
            limit = limits.max_confidence_distance if fact == CONFIDENCE else limits.max_image_distance
            found.append(
                Comparison(fact, median(histogram), median(seen), None, apart.value, apart.noise, limit)
            )
    if observed.classes.sum():
        apart, worst = distance.of_labels(expected.classes, observed.classes)
        found.append(
            Comparison(
                CLASSES,
                float(expected.classes[worst] / expected.classes.sum()),
                float(observed.classes[worst] / observed.classes.sum()),
                worst,
                apart.value,
                apart.noise,
                limits.max_class_distance,
            )
        )
    return Findings(expected, observed, tuple(found))


def _add(seen: Observed, request: request_log.Request) -> None:
    seen.requests += 1
    if request.images is not None:
        seen.images += len(request.images)
        for name, histogram in image_facts.image_histograms(request.images).items():
            if name in seen.histograms:  # not in the facts of an older run
                seen.histograms[name] += histogram
    if request.confidence is not None:
        seen.histograms[CONFIDENCE] += image_facts.unit_histogram(request.confidence)
    if request.classes is not None:
        seen.classes += np.bincount(request.classes, minlength=len(seen.classes))[: len(seen.classes)]
