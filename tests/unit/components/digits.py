"""An Examples artifact of digits, written here, and the Evaluator run on one."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from tfx.components.util import model_utils
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import json_utils, proto_utils

from components.artifacts import ClassificationMetrics, Metrics
from components.data_gate import survey
from components.evaluator import tfma_files
from components.evaluator.executor import Executor
from components.shared import handover, verdict
from components.shared.dataset_facts import DatasetFacts
from components.shared.verdict import Verdict
from pipeline.beam_config import LOCAL_BEAM_ARGS
from pipeline.config import GatesConfig
from trainer import features
from trainer.features import ImageInput, ImageShape

GATES = GatesConfig(accuracy=0.5, class_accuracy=0.0, calibration_error=1.0, robustness_examples=50)


def write_examples(
    folder: Path, splits: Mapping[str, tuple[np.ndarray, np.ndarray]], files: int = 1
) -> Artifact:
    """Write images uint8 [N, H, W] and labels [N], in so many files a split; ids are as of an IDX file."""
    made: Artifact = standard_artifacts.Examples()
    made.uri = str(folder)
    made.split_names = artifact_utils.encode_split_names(list(splits))
    for split, (images, labels) in splits.items():
        made.set_int_custom_property("height", images.shape[1])
        made.set_int_custom_property("width", images.shape[2])
        made.set_int_custom_property(f"{split}_examples", len(labels))
        target = Path(artifact_utils.get_split_uri([made], split))
        target.mkdir(parents=True)
        for number in range(files):
            name = target / f"data_tfrecord-{number:05d}-of-{files:05d}"
            with tf.io.TFRecordWriter(str(name)) as writer:
                for index in range(number, len(labels), files):
                    writer.write(example(images[index], int(labels[index]), f"{split}-images#{index}"))
    return made


def example(image: np.ndarray, label: int, origin: str) -> bytes:
    """A serialized tf.Example."""
    values = {
        features.IMAGE: tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()])),
        features.LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        features.ID: tf.train.Feature(bytes_list=tf.train.BytesList(value=[origin.encode()])),
    }
    serialized: bytes = tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()
    return serialized


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the Evaluator left."""

    verdict: Verdict
    folder: str
    outputs: dict[str, list[Any]]

    @property
    def blessed(self) -> bool:
        """As TFX sees it."""
        return bool(model_utils.is_model_blessed(self.outputs["blessing"][0]))


def model(folder: Path) -> Artifact:
    """A Model artifact in a folder."""
    made: Artifact = standard_artifacts.Model()
    made.uri, made.id = str(folder), 7
    return made


def properties(gates: GatesConfig = GATES) -> dict[str, Any]:
    """The Evaluator's execution properties."""
    return {
        "eval_config": proto_utils.proto_to_json(tfma_files.eval_config()),
        "example_splits": json_utils.dumps([features.TEST]),
        "gates": json.dumps(gates.model_dump()),
    }


def judge(
    root: Path,
    examples: Artifact,
    candidate: Path,
    baseline: Path | None = None,
    gates: GatesConfig = GATES,
    model_run: Path | None = None,
) -> Judged:
    """Run the Evaluator."""
    outputs: dict[str, list[Any]] = {
        "evaluation": [standard_artifacts.ModelEvaluation()],
        "blessing": [standard_artifacts.ModelBlessing()],
        "metrics": [Metrics()],
        "confusion": [ClassificationMetrics()],
    }
    for name, (artifact,) in outputs.items():
        artifact.uri = str(root / name)
    inputs = {"examples": [examples], "model": [model(candidate)]}
    if baseline:
        inputs["baseline_model"] = [model(baseline)]
    if model_run:
        inputs["model_run"] = [model(model_run)]
    context = Executor.Context(beam_pipeline_args=list(LOCAL_BEAM_ARGS), tmp_dir=str(root), unique_id="1")
    Executor(context).Do(inputs, outputs, properties(gates))
    folder = outputs["evaluation"][0].uri
    return Judged(verdict.from_json(Path(folder, verdict.VERDICT_FILE).read_text()), folder, outputs)


def facts_of(
    folders: Mapping[str, str],
    size: tuple[int, int],
    num_classes: int,
    dataset: str = "",
    fingerprint: str = "",
) -> DatasetFacts:
    """The facts of examples in folders, as DataGate finds them."""
    with tempfile.TemporaryDirectory() as folder:
        with beam.Pipeline(options=PipelineOptions(list(LOCAL_BEAM_ARGS))) as pipeline:
            handover.give(survey.run(pipeline, folders, ImageInput(ImageShape(*size)), num_classes), folder)
        return survey.dataset_facts(handover.take(folder), dataset, fingerprint)
