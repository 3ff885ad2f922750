"""DataGate: blesses clean data, stops anything else and names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx.types import standard_artifacts

from components.artifacts import DataBlessing
from components.data_gate.executor import ANOMALIES_FILE, REPORT_FILE, DataAnomaliesError, Executor
from pipeline.schema import schema_text

SCHEMA = text_format.Parse(schema_text(num_classes=10), schema_pb2.Schema())


def statistics(labels: list[int], images: int | None = None) -> statistics_pb2.DatasetFeatureStatisticsList:
    """Statistics of examples with these labels, of which the first `images` have an image."""
    csv = tfdv.StatsOptions(schema=SCHEMA)
    import pandas as pd

    with_image = len(labels) if images is None else images
    frame = pd.DataFrame(
        {"label": labels, "image": [b"x" if i < with_image else None for i in range(len(labels))]}
    )
    return tfdv.generate_statistics_from_dataframe(frame, csv)


def run_gate(tmp_path: Path, **splits: statistics_pb2.DatasetFeatureStatisticsList) -> DataBlessing:
    """The gate's output for these splits, with anomalies as TFDV (so ExampleValidator) finds them."""
    anomalies = standard_artifacts.ExampleAnomalies()
    anomalies.uri = str(tmp_path / "anomalies")
    anomalies.split_names = json.dumps(list(splits))
    for split, stats in splits.items():
        folder = tmp_path / "anomalies" / f"Split-{split}"
        folder.mkdir(parents=True)
        found = tfdv.validate_statistics(stats, SCHEMA)
        (folder / ANOMALIES_FILE).write_bytes(found.SerializeToString())
    blessing = DataBlessing()
    blessing.uri = str(tmp_path / "blessing")
    Executor().Do({"anomalies": [anomalies]}, {"blessing": [blessing]}, {})
    return blessing


def test_clean_data_are_blessed(tmp_path: Path) -> None:
    clean = statistics(list(range(10)))
    blessing = run_gate(tmp_path, train=clean, test=clean)
    assert blessing.get_int_custom_property("blessed") == 1
    report = json.loads(Path(blessing.uri, REPORT_FILE).read_text())
    assert report == {"splits": ["train", "test"], "anomalies": []}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (statistics([0, 1, 12]), "label"),
        (statistics([0, -1, 2]), "label"),
        (statistics([0, 1, 2, 3], images=2), "image"),
    ],
    ids=["label too high", "label negative", "images missing"],
)
def test_an_anomaly_stops_the_run_and_is_named(
    tmp_path: Path, bad: statistics_pb2.DatasetFeatureStatisticsList, said: str
) -> None:
    with pytest.raises(DataAnomaliesError, match=f"test: {said}: ") as caught:
        run_gate(tmp_path, train=statistics(list(range(10))), test=bad)
    assert "train:" not in str(caught.value)
    assert not (tmp_path / "blessing").exists()
