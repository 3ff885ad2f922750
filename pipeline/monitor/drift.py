"""Do requests still look like the training data? A server's log compared with the data of a run.

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

from components.shared import answers, classifier, distance, image_facts
from components.shared.dataset_facts import FACTS_FILE, DatasetFacts, FactsError
from components.shared.image_facts import median
from pipeline import product
from pipeline.errors import UserError
from pipeline.history import records
from pipeline.history.records import Run
from pipeline.monitor import request_log
from pipeline.nodes import NodeId, Output
from trainer import features

CLASSES, CONFIDENCE = "predicted_classes", "confidence"
_SAVED_MODEL = "Format-Serving"  # below TFX's model artifact


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
    """What a run's model was trained on, and how sure of itself it is.

    Attributes:
        run: the run's id.
        model: name of the model.
        version: that it became.
        reader: makes of a request what the network got of it.
        histograms: counts in facts.BINS bins: of each image fact, and of CONFIDENCE.
        classes: how many of each class, [C].
        names: of the classes, by label.
    """

    run: str
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
            "run": self.expected.run,
            "model": self.expected.model,
            "version": self.expected.version,
            "requests": self.observed.requests,
            "images": self.observed.images,
            "requests_elsewhere": self.observed.elsewhere,
            "damaged_files": self.observed.damage.files,
            "damaged_records": self.observed.damage.records,
            "facts": [asdict(each) | {"drift": each.drifted} for each in self.comparisons],
        }


def find_run(past: records.History, name: str | None) -> Run:
    """The run of a name, or the newest one that pushed a model.

    Raises:
        MonitorError: where no run pushed one.
        history.HistoryError: where there is no such run.
    """
    if name is not None:
        return past.find(name)
    for run in past.runs():
        if run.pushed_version:
            return run
    raise MonitorError(f"no run has pushed a model; `{product.NAME} run` pushes one")


def expected(run: Run) -> Expected:
    """Statistics of a run, from its artifacts; what its model said of the test split is the Evaluator's.

    Raises:
        MonitorError: where the run pushed nothing, or an artifact is gone.
    """
    if not run.pushed_version:
        raise MonitorError(f"run {run.id} pushed no model: its verdict is {run.verdict!r}")
    facts_file = _folder(run, NodeId.DATA_GATE, Output.BLESSING) / FACTS_FILE
    model = _folder(run, NodeId.TRAINER, Output.MODEL) / _SAVED_MODEL
    evaluation = _folder(run, NodeId.EVALUATOR, Output.EVALUATION)
    for path in (facts_file, model, evaluation):
        if not path.exists():
            raise MonitorError(f"run {run.id}: {path} is gone")
    try:
        train = DatasetFacts.from_json(facts_file.read_text()).splits[features.TRAIN]
    except (FactsError, KeyError) as error:
        raise MonitorError(f"{facts_file}: {error}") from None
    confidence = np.zeros(image_facts.BINS, np.int64)
    for some in answers.confidences(evaluation):
        confidence += image_facts.unit_histogram(some)
    if not confidence.any():
        raise MonitorError(
            f"run {run.id}: {evaluation} holds no answers; "
            f"`{product.NAME} run --rerun {NodeId.EVALUATOR}` asks the model again"
        )
    return Expected(
        run=run.id,
        model=_property(run, NodeId.PUSHER, Output.PUSHED_MODEL, "pushed_destination").parent.name,
        version=int(run.pushed_version),
        reader=request_log.Reader(classifier.load(model), classifier.image_shape(model)),
        histograms={name: np.array(counts) for name, counts in train.images.items()}
        | {CONFIDENCE: confidence},
        classes=np.array(train.labels),
        names=_names(model, len(train.labels)),
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
            f"{message}; {named}: run the server with --model-name {expected.model}, or name another --run"
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


def _folder(run: Run, node: str, key: str) -> Path:
    found = run.node(node)
    artifact = found.output(key) if found else None
    if artifact is None:
        raise MonitorError(f"run {run.id} has no {key} of {node}")
    return Path(artifact.uri)


def _property(run: Run, node: str, key: str, name: str) -> Path:
    found = run.node(node)
    artifact = found.output(key) if found else None
    if artifact is None or name not in artifact.properties:
        raise MonitorError(f"run {run.id} has no {name} of {node}")
    return Path(artifact.properties[name])
