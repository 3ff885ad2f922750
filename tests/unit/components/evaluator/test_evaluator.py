"""Evaluator: TFMA's files and our verdict agree, and the blessing follows the verdict."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_model_analysis as tfma
from tfx.components.util import model_utils
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import json_utils, proto_utils

from components.artifacts import ClassificationMetrics, Metrics
from components.evaluator.executor import Executor
from components.image_example_gen.executor import hashed
from components.image_example_gen.shards import write_shard
from components.image_example_gen.sources import idx
from components.shared import verdict
from components.shared.verdict import Verdict
from pipeline import evaluation
from pipeline.config import LOCAL_BEAM_ARGS, GatesConfig
from tests.conftest import TINY_TEST, TINY_TRAIN
from tests.unit.components.nearest import Nearest
from trainer import features

GATES = GatesConfig(accuracy=0.5, class_accuracy=0.0, calibration_error=1.0, robustness_examples=50)


@pytest.fixture(scope="module")
def examples(tiny_mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    root = tmp_path_factory.mktemp("examples")
    files = idx.find_files(tiny_mnist_dir)
    images, labels = next(idx.stream(files.test_images, files.test_labels, TINY_TEST, None))
    made = standard_artifacts.Examples()
    made.uri = str(root / "examples")
    made.split_names = artifact_utils.encode_split_names([features.TEST])
    made.set_int_custom_property("height", 28)
    made.set_int_custom_property("width", 28)
    folder = artifact_utils.get_split_uri([made], features.TEST)
    write_shard(folder, str(root / "staging"), 0, 1, [hashed(images, labels, 0)], images.__getitem__)
    return made


@pytest.fixture(scope="module")
def models(tiny_mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: `good`, and `bad`, which learned from far fewer digits; of 9 classes: `other`."""
    root = tmp_path_factory.mktemp("models")
    files = idx.find_files(tiny_mnist_dir)
    images, labels = next(idx.stream(files.train_images, files.train_labels, TINY_TRAIN, None))
    Nearest(images, labels).save(root / "good" / "Format-Serving")
    Nearest(images[:40], labels[:40]).save(root / "bad" / "Format-Serving")
    few = labels < 9
    Nearest(images[few], labels[few]).save(root / "other")
    return root


def model(folder: Path) -> Artifact:
    made = standard_artifacts.Model()
    made.uri, made.id = str(folder), 7
    return made


@dataclasses.dataclass(frozen=True)
class Judged:
    verdict: Verdict
    folder: str
    outputs: dict[str, list[Any]]

    @property
    def blessed(self) -> bool:
        return bool(model_utils.is_model_blessed(self.outputs["blessing"][0]))


def judge(
    root: Path,
    examples: Artifact,
    candidate: Path,
    baseline: Path | None = None,
    gates: GatesConfig = GATES,
) -> Judged:
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
    context = Executor.Context(beam_pipeline_args=list(LOCAL_BEAM_ARGS), tmp_dir=str(root), unique_id="1")
    Executor(context).Do(
        inputs,
        outputs,
        {
            "eval_config": proto_utils.proto_to_json(evaluation.eval_config()),
            "example_splits": json_utils.dumps([features.TEST]),
            "gates": json.dumps(gates.model_dump()),
        },
    )
    folder = outputs["evaluation"][0].uri
    return Judged(verdict.from_json(Path(folder, verdict.VERDICT_FILE).read_text()), folder, outputs)


@pytest.fixture(scope="module")
def compared(examples: Artifact, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The bad model, with the good one in production."""
    root = tmp_path_factory.mktemp("compared")
    return judge(root, examples, models / "bad", models / "good" / "Format-Serving")


def test_tfma_measures_the_same(compared: Judged) -> None:
    found = compared.verdict
    result = tfma.load_eval_result(compared.folder)
    accuracies = {
        key: metrics[""][""][evaluation.ACCURACY]["doubleValue"] for key, metrics in result.slicing_metrics
    }
    assert accuracies.pop(()) == pytest.approx(found.accuracy.value)
    assert {dict(key)[features.LABEL]: value for key, value in accuracies.items()} == pytest.approx(
        {number: measure.value for number, measure in found.class_accuracy.items()}
    )


def test_a_baseline_is_judged_as_it_would_be_as_a_candidate(
    compared: Judged, examples: Artifact, models: Path, tmp_path: Path
) -> None:
    alone = judge(tmp_path, examples, models / "good").verdict
    baseline = compared.verdict.baseline
    assert baseline is not None
    assert (baseline.fingerprint, baseline.accuracy) == (alone.model, alone.accuracy)
    assert baseline.class_accuracy == alone.class_accuracy
    assert alone.no_baseline == "none was given"


def test_a_candidate_worse_than_the_baseline_is_refused(compared: Judged) -> None:
    assert not compared.blessed
    assert {gate.name for gate in compared.verdict.failed} == {"accuracy_drop", "class_accuracy_drop"}
    (blessing,) = compared.outputs["blessing"]
    assert Path(blessing.uri, "NOT_BLESSED").is_file()
    assert blessing.get_string_custom_property("baseline_model").endswith("good/Format-Serving")
    assert blessing.get_int_custom_property("current_model_id") == 7


def test_the_dashboard_gets_the_verdict_s_figures(compared: Judged) -> None:
    (metrics,), (confusion,) = compared.outputs["metrics"], compared.outputs["confusion"]
    assert metrics.get_float_custom_property("accuracy") == compared.verdict.accuracy.value
    lost = compared.verdict.baseline
    assert lost is not None
    assert metrics.get_float_custom_property("accuracy_drop") == lost.accuracy_drop.value
    shown = confusion.get_json_value_custom_property("confusionMatrix")
    assert [row["row"] for row in shown["rows"]] == compared.verdict.confusion
    for name, (artifact,) in compared.outputs.items():
        assert any(Path(artifact.uri).iterdir()), f"{name} would count as deleted"
    assert [spec["displayName"] for spec in shown["annotationSpecs"]] == [str(n) for n in range(10)]


def test_a_good_one_is_blessed_where_the_baseline_knows_other_classes(
    examples: Artifact, models: Path, tmp_path: Path
) -> None:
    judged = judge(tmp_path, examples, models / "good", models / "other")
    assert judged.blessed
    assert judged.verdict.baseline is None
    assert "cannot be compared with: it knows 9 classes" in judged.verdict.no_baseline
    assert np.sum(judged.verdict.confusion) == TINY_TEST
    assert len(judged.verdict.robustness) == 18
    assert {part.accuracy.examples for part in judged.verdict.robustness} == {50}


def test_without_a_model_it_fails(examples: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no SavedModel in"):
        judge(tmp_path, examples, tmp_path / "nothing")
