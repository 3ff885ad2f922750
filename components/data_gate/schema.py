"""ExampleValidator's anomalies, by severity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Literal

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.dsl.io import fileio

from components.data_gate.checks import Anomaly
from components.shared.image_facts import SplitFacts
from trainer import features

ANOMALIES_FILE = "SchemaDiff.pb"  # ExampleValidator's name, one a split
WHOLE = "dataset"  # stands for the feature where an anomaly concerns no single one

Severity = Literal["warning", "error"]


def read_anomalies(folder: str) -> anomalies_pb2.Anomalies:
    """The anomalies of one split, from ExampleValidator's folder for it."""
    with fileio.open(str(PurePath(folder) / ANOMALIES_FILE), "rb") as file:
        return anomalies_pb2.Anomalies.FromString(file.read())


def find(
    split: str, anomalies: anomalies_pb2.Anomalies, facts: SplitFacts
) -> Iterator[tuple[Severity, Anomaly]]:
    """Each anomaly of a split with its severity and the share of the examples that is at fault."""
    bad = {features.LABEL: facts.bad_labels, features.IMAGE: facts.bad_images}
    for feature, text, severity in _each(anomalies):
        # What concerns all examples, or a feature that we do not know, concerns each of them.
        share = bad.get(feature, facts.examples) / facts.examples if facts.examples else 1.0
        yield severity, Anomaly(f"{split}.schema.{feature}", share, text or "there are no examples")


def _each(anomalies: anomalies_pb2.Anomalies) -> Iterator[tuple[str, str, Severity]]:
    whole = anomalies.dataset_anomaly_info
    if whole.reason or whole.description:
        yield WHOLE, whole.description, _severity(whole)
    for name, info in sorted(anomalies.anomaly_info.items()):
        yield name, info.description or info.short_description, _severity(info)
    if anomalies.data_missing:
        yield WHOLE, "", "error"


def _severity(info: anomalies_pb2.AnomalyInfo) -> Severity:
    # What TFDV gives no severity counts as an error.
    return "warning" if info.severity == anomalies_pb2.AnomalyInfo.WARNING else "error"
