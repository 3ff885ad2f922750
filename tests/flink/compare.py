"""Two runs of the pipeline, artifact by artifact."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
import tensorflow_transform as tft
from google.protobuf import json_format
from pyarrow import parquet
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_metadata.proto.v0 import statistics_pb2

from components.shared import answers, dataset_facts, verdict
from components.shared.names import SUMMARY_FILE
from pipeline.config import PipelineConfig
from pipeline.history.records import Artifact, History, Run
from trainer import features

TOLERANCE = 1e-6
SPLITS = (features.TRAIN, features.VALIDATION, features.TEST)


def newest(root: Path) -> Run:
    """The newest run below a root."""
    return History(PipelineConfig(root=root)).find(None)


def artifact(run: Run, node: str, key: str) -> Artifact:
    """What a node of a run wrote."""
    found = run.node(node)
    assert found is not None
    output = found.output(key)
    assert output is not None
    return output


def folder(run: Run, node: str, key: str) -> Path:
    """Where a node of a run wrote."""
    return Path(artifact(run, node, key).uri)


def examples(run: Run) -> dict[str, list[str]]:
    """SHA-256 of each file of each split, whose records are in an order of their own."""
    return {
        split: [
            hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted((folder(run, "ImageExampleGen", "examples") / f"Split-{split}").iterdir())
        ]
        for split in SPLITS
    }


def counts(run: Run) -> dict[str, int]:
    """Examples in each split, counted in the files."""
    files = {
        split: (folder(run, "ImageExampleGen", "examples") / f"Split-{split}").iterdir() for split in SPLITS
    }
    return {
        split: sum(1 for file in found for _ in tf.data.TFRecordDataset(str(file)))
        for split, found in files.items()
    }


def statistics(run: Run, split: str) -> dict[str, Any]:
    """The statistics of a split; what Beam puts together in any order is sorted."""
    file = folder(run, "StatisticsGen", "statistics") / f"Split-{split}" / "FeatureStats.pb"
    message = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())
    for dataset in message.datasets:
        dataset.features.sort(key=lambda feature: str(feature.path))
    values: dict[str, Any] = json_format.MessageToDict(message)
    return values


def transformed(run: Run) -> np.ndarray:
    """What the transform graph makes of two images: float32 [2, H, W, 1]."""
    graph = tft.TFTransformOutput(str(folder(run, "Transform", "transform_graph")))
    raw = {
        features.IMAGE: tf.constant([[bytes(range(196)) * 4], [bytes(784)]]),
        features.LABEL: tf.constant([[3], [7]], tf.int64),
    }
    return np.asarray(graph.transform_features_layer()(raw)[features.IMAGE])


def graph_operations(run: Run) -> Counter[str]:
    """How often each operation occurs in the transform graph."""
    path = folder(run, "Transform", "transform_graph") / "transform_fn" / "saved_model.pb"
    graph = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs[0].graph_def
    nodes = [node.op for node in graph.node]
    return Counter(nodes + [node.op for function in graph.library.function for node in function.node_def])


def evaluation(run: Run) -> dict[str, Any]:
    """Every metric and plot of the Evaluator, by slice."""
    result = tfma.load_eval_result(str(folder(run, "Evaluator", "evaluation")))
    return {
        kind: {str(key): values for key, values in slices}
        for kind, slices in (("metrics", result.slicing_metrics), ("plots", result.plots))
    }


def facts(run: Run) -> dict[str, Any]:
    """What DataGate found out about the data."""
    text = (folder(run, "DataGate", "blessing") / dataset_facts.FACTS_FILE).read_text()
    values: dict[str, Any] = json.loads(text)
    return values


def judgement(run: Run) -> dict[str, Any]:
    """The Evaluator's verdict, without the hash of the model's files, and its answers by example."""
    evaluated = folder(run, "Evaluator", "evaluation")
    values: dict[str, Any] = json.loads((evaluated / verdict.VERDICT_FILE).read_text())
    said = [row for file in evaluated.glob(answers.PATTERN) for row in parquet.read_table(file).to_pylist()]
    worst = [vars(mistake) for mistake in answers.read_mistakes(str(evaluated))]
    return values | {"model": "", "answers": {row["id"]: row for row in said}, "worst": worst}


def figures(run: Run) -> dict[str, Any]:
    """The report's, but for what differs between two runs of anything: seconds and versions."""
    values: dict[str, Any] = json.loads((folder(run, "ReportGen", "report") / SUMMARY_FILE).read_text())
    return {
        key: value
        for key, value in values.items()
        if key not in ("train_seconds", "images_per_s", "pushed_version")
    }


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two nested values differ by more than the tolerance."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted({*one, *other})
        missing = [f"{path}.{key}: on one side only" for key in keys if (key in one) != (key in other)]
        both = [key for key in keys if key in one and key in other]
        return missing + [d for key in both for d in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return [f"{path}: {len(one)} and {len(other)} values"]
        pairs = enumerate(zip(one, other, strict=True))
        return [d for index, (a, b) in pairs for d in differences(a, b, f"{path}[{index}]")]
    if isinstance(one, float) and isinstance(other, (int, float)):
        same = math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    else:
        same = one == other
    return [] if same else [f"{path}: {one!r} and {other!r}"]
