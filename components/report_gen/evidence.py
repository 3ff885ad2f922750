"""What the nodes of a run left in their artifacts, read back for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.components.util import model_utils
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

from components.shared import answers, examples, names
from components.shared.answers import Mistake
from components.shared.verdict import VERDICT_FILE, Verdict, from_json
from trainer import features
from trainer.features import ImageInput

SPLITS = (features.TRAIN, features.VALIDATION, features.TEST)
STATISTICS_FILE = "FeatureStats.pb"  # StatisticsGen's name, one a split
ANOMALIES_FILE = "SchemaDiff.pb"  # ExampleValidator's, one a split
_SAMPLED = 1000  # examples that are looked at for one of each class


@dataclass(frozen=True)
class Data:
    """The data set.

    Attributes:
        images: the shape of an image, and how examples hold it.
        class_names: by label.
        fingerprint: SHA-256 of the files' contents.
        examples: how many, by split.
        classes: how many of each class, by split: [C].
        anomalies: lines, by split.
        gate: data_gate.json of DataGate, empty where it wrote none.
        samples: one image of each class that was found at once, by split: label and uint8 [H, W].
    """

    images: ImageInput
    class_names: tuple[str, ...]
    fingerprint: str
    examples: Mapping[str, int]
    classes: Mapping[str, tuple[int, ...]]
    anomalies: Mapping[str, list[str]]
    gate: Mapping[str, Any]
    samples: Mapping[str, list[tuple[int, NDArray[np.uint8]]]]


@dataclass(frozen=True)
class Evidence:
    """All that the page is made of.

    Attributes:
        model_name: what the model is called.
        recipe: which hyper-parameters trained it.
        data: the data set.
        training: metrics.json of the Trainer.
        verdict: the Evaluator's, with all its figures.
        mistakes: the worst: each with its image, uint8 [H, W].
        blessed: whether the Evaluator accepted the model.
        servable: whether a server answered with it as it should.
        served: why, or why not.
        pushed_version: the version it became, empty where it was not pushed.
    """

    model_name: str
    recipe: str
    data: Data
    training: Mapping[str, Any]
    verdict: Verdict
    mistakes: list[tuple[Mistake, NDArray[np.uint8]]]
    blessed: bool
    servable: bool
    served: str
    pushed_version: str

    @property
    def num_classes(self) -> int:
        """As the model sees it."""
        return len(self.verdict.confusion)


def collect(inputs: dict[str, list[Artifact]], model_name: str, recipe: str) -> Evidence:
    """Read all artifacts."""
    one = {key: artifact_utils.get_single_instance(artifacts) for key, artifacts in inputs.items()}
    evaluation = one["evaluation"].uri
    verdict = from_json(Path(evaluation, VERDICT_FILE).read_text())
    pushed = one["pushed_model"]
    return Evidence(
        model_name=model_name,
        recipe=recipe,
        data=_data(one, len(verdict.confusion)),
        training=examples.json_file(one["model_run"], names.METRICS_FILE),
        verdict=verdict,
        mistakes=_pictured(answers.read_mistakes(evaluation), examples.image_input(one["examples"])),
        blessed=model_utils.is_model_blessed(one["model_blessing"]),
        servable=bool(one["infra_blessing"].get_int_custom_property("blessed")),
        served=one["infra_blessing"].get_string_custom_property("reason"),
        pushed_version=pushed.get_string_custom_property("pushed_version")
        if pushed.get_int_custom_property("pushed")
        else "",
    )


def _pictured(mistakes: list[Mistake], given: ImageInput) -> list[tuple[Mistake, NDArray[np.uint8]]]:
    if not mistakes:
        return []
    images, good = examples.decode(examples.parse([each.example for each in mistakes]).raw, given)
    return list(
        zip((each for each, is_good in zip(mistakes, good, strict=True) if is_good), images, strict=True)
    )


def _data(one: Mapping[str, Artifact], classes: int) -> Data:
    data = one["examples"]
    given = examples.image_input(data)
    return Data(
        images=given,
        class_names=tuple(examples.class_names(data)) or tuple(map(str, range(classes))),
        fingerprint=data.get_string_custom_property("fingerprint"),
        examples={split: data.get_int_custom_property(f"{split}_examples") for split in SPLITS},
        classes={split: class_counts(_statistics(one["statistics"], split), classes) for split in SPLITS},
        anomalies={
            split: anomaly_lines(_anomalies(one["anomalies"], split))
            for split in artifact_utils.decode_split_names(one["anomalies"].split_names)
        },
        gate=examples.json_file(one["data_blessing"], names.DATA_GATE_FILE),
        samples={split: _samples(data, split, given, classes) for split in SPLITS},
    )


def _samples(
    artifact: Artifact, split: str, given: ImageInput, classes: int
) -> list[tuple[int, NDArray[np.uint8]]]:
    """An example of each class: label and uint8 [H, W]; a class that the first ones lack is left out."""
    first = next(examples.read(examples.split_files(artifact, split), _SAMPLED), None)
    if first is None:
        return []
    images, good = examples.decode(first.raw, given)
    labels = first.labels[good]
    return [
        (number, images[found[0]])
        for number in range(classes)
        if len(found := np.flatnonzero(labels == number))
    ]


def class_counts(statistics: statistics_pb2.DatasetFeatureStatistics, classes: int) -> tuple[int, ...]:
    """How many examples each class has, from the ranks of the label's values."""
    (label,) = (f for f in statistics.features if list(f.path.step) == [features.LABEL])
    found = {
        int(bucket.label): int(bucket.sample_count) for bucket in label.string_stats.rank_histogram.buckets
    }
    return tuple(found.get(number, 0) for number in range(classes))


def _statistics(artifact: Artifact, split: str) -> statistics_pb2.DatasetFeatureStatistics:
    path = str(PurePath(artifact_utils.get_split_uri([artifact], split)) / STATISTICS_FILE)
    with fileio.open(path, "rb") as file:
        (dataset,) = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read()).datasets
    return dataset


def _anomalies(artifact: Artifact, split: str) -> anomalies_pb2.Anomalies:
    path = str(PurePath(artifact_utils.get_split_uri([artifact], split)) / ANOMALIES_FILE)
    with fileio.open(path, "rb") as file:
        return anomalies_pb2.Anomalies.FromString(file.read())


def anomaly_lines(anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """One line per anomaly: the feature, and what is wrong with it."""
    whole = anomalies.dataset_anomaly_info.description
    return [whole] * bool(whole) + [
        f"{name}: {info.description or info.short_description}"
        for name, info in sorted(anomalies.anomaly_info.items())
    ]
