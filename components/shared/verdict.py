"""The verdict on a model: what was measured, every gate, and the file that carries both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from components.shared.measures import Bin, Measure

VERDICT_FILE = "verdict.json"  # in the evaluation artifact
FORMAT = 3

OVERALL = "overall"
VALIDATION = "the validation split"
Bound = Literal["at least", "at most"]
AT_LEAST: Bound = "at least"
AT_MOST: Bound = "at most"


class VerdictError(ValueError):
    """The text is no verdict of a format that is known here."""


@dataclass(frozen=True)
class Gate:
    """One threshold and what was found.

    Attributes:
        name: the setting of the section `gates` that it comes from.
        slice_name: which test examples: "overall", "class 3", or the name of a corruption; or, of a metric
            of the model function's own, the validation split; or the file of a LiteRT model.
        metric: what is compared, in words.
        value: what was found.
        bound: which side of the threshold is the good one.
        threshold: the last value that passes.
        passed: whether it did.
        interval: 95 % interval of the value, None where there is none.
        examples: how many examples it rests on.
    """

    name: str
    slice_name: str
    metric: str
    value: float
    bound: Bound
    threshold: float
    passed: bool
    interval: tuple[float, float] | None
    examples: int


@dataclass(frozen=True)
class Robustness:
    """Accuracy on a part of the test images, each changed in one way; severity counts from 1."""

    corruption: str
    severity: int
    accuracy: Measure


@dataclass(frozen=True)
class Baseline:
    """How the model in production does on the same examples.

    Attributes:
        version: its name in the push destination, or its URI.
        fingerprint: SHA-256 of its files.
        accuracy: overall.
        class_accuracy: by class.
        accuracy_drop: baseline minus candidate, overall; its interval is that of paired answers.
        class_accuracy_drop: the same by class.
    """

    version: str
    fingerprint: str
    accuracy: Measure
    class_accuracy: Mapping[int, Measure]
    accuracy_drop: Measure
    class_accuracy_drop: Mapping[int, Measure]


@dataclass(frozen=True)
class Lite:
    """How the LiteRT model that lies next to the SavedModel does on the same examples.

    Attributes:
        accuracy: overall.
        accuracy_drop: the SavedModel's minus this one's; its interval is that of paired answers.
        agreement: share of examples to which both give the same class.
        size_bytes: of its file.
        saved_model_bytes: of the files of the SavedModel.
        latency_ms: median time of an answer to one image, by one thread of the machine that measured it.
    """

    accuracy: Measure
    accuracy_drop: Measure
    agreement: Measure
    size_bytes: int
    saved_model_bytes: int
    latency_ms: float


@dataclass(frozen=True)
class Verdict:
    """The judgement of one model on one split.

    Attributes:
        model: SHA-256 of the model's files.
        split: whose examples were used.
        accuracy: overall.
        class_accuracy: by class, of those that there are examples of.
        calibration_error: expected calibration error.
        log_loss: mean cross entropy, in nats.
        confusion: counts [C][C]: rows are true classes.
        reliability: accuracy by confidence.
        gates: all of them.
        baseline: None where there is no model to compare with.
        no_baseline: why there is none.
        robustness: by corruption and severity.
        lite: None where there is no LiteRT model.
        class_names: by label; empty where nobody named them.
    """

    model: str
    split: str
    accuracy: Measure
    class_accuracy: Mapping[int, Measure]
    calibration_error: Measure
    log_loss: float
    confusion: list[list[int]]
    reliability: tuple[Bin, ...]
    gates: tuple[Gate, ...]
    baseline: Baseline | None = None
    no_baseline: str = ""
    robustness: tuple[Robustness, ...] = field(default=())
    lite: Lite | None = None
    class_names: tuple[str, ...] = ()

    @property
    def blessed(self) -> bool:
        """Whether every gate was passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def failed(self) -> tuple[Gate, ...]:
        """The gates that were not passed."""
        return tuple(gate for gate in self.gates if not gate.passed)

    @property
    def weakest_class(self) -> int:
        """The class with the lowest accuracy."""
        return min(self.class_accuracy, key=lambda number: self.class_accuracy[number].value)

    def name_of(self, number: int) -> str:
        """Of a class."""
        return self.class_names[number] if self.class_names else str(number)

    def to_json(self) -> str:
        """The file's text; equal verdicts give equal texts."""
        return json.dumps({"format": FORMAT, "blessed": self.blessed, **asdict(self)}, indent=1)


def from_json(text: str) -> Verdict:
    """Read a verdict back.

    Raises:
        VerdictError: for anything that `to_json` did not write.
    """
    try:
        content = json.loads(text)
        if content.pop("format") != FORMAT:
            raise VerdictError("the verdict is of another format: run the pipeline again")
        blessed = content.pop("blessed")
        verdict = _verdict(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, VerdictError):
            raise
        raise VerdictError(f"no verdict: {error}") from None
    if verdict.blessed is not blessed:
        raise VerdictError("no verdict: its gates say otherwise than it does")
    return verdict


def _verdict(content: dict[str, Any]) -> Verdict:
    baseline, lite = content.pop("baseline"), content.pop("lite", None)
    return Verdict(
        **content
        | {
            "accuracy": Measure(**content["accuracy"]),
            "class_accuracy": _by_class(content["class_accuracy"]),
            "calibration_error": Measure(**content["calibration_error"]),
            "reliability": tuple(
                Bin(**part | {"accuracy": Measure(**part["accuracy"])}) for part in content["reliability"]
            ),
            "gates": tuple(_gate(gate) for gate in content["gates"]),
            "robustness": tuple(
                Robustness(**part | {"accuracy": Measure(**part["accuracy"])})
                for part in content["robustness"]
            ),
            "baseline": _baseline(baseline) if baseline else None,
            "lite": _lite(lite) if lite else None,
            "class_names": tuple(content.get("class_names", ())),
        }
    )


def _baseline(content: dict[str, Any]) -> Baseline:
    return Baseline(
        **content
        | {name: Measure(**content[name]) for name in ("accuracy", "accuracy_drop")}
        | {name: _by_class(content[name]) for name in ("class_accuracy", "class_accuracy_drop")}
    )


def _gate(content: dict[str, Any]) -> Gate:
    interval = content["interval"]
    return Gate(**content | {"interval": tuple(interval) if interval else None})


def _lite(content: dict[str, Any]) -> Lite:
    measured = ("accuracy", "accuracy_drop", "agreement")
    return Lite(**content | {name: Measure(**content[name]) for name in measured})


def _by_class(content: dict[str, Any]) -> dict[int, Measure]:
    return {int(number): Measure(**measure) for number, measure in content.items()}
