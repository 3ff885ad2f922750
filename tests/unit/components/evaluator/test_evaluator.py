"""Evaluator: TFMA's files are TFX's own, the verdict agrees with them, and the blessing follows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from pyarrow import parquet
from tfx.components.evaluator.executor import Executor as TfxExecutor
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact
from tfx.utils import proto_utils

from components.evaluator import answering, tfma_files
from components.evaluator.component import Evaluator
from components.evaluator.executor import Executor
from components.image_example_gen.sources import idx, idx_pairs
from components.shared import answers, classifier
from pipeline.beam_config import LOCAL_BEAM_ARGS
from pipeline.config import GatesConfig
from tests.conftest import TINY_TEST, TINY_TRAIN
from tests.unit.components.digits import Judged, judge, model, properties, write_examples
from tests.unit.components.nearest import Nearest
from trainer import features


@pytest.fixture(scope="module")
def digits(tiny_mnist_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    files = idx.find_files(tiny_mnist_dir)
    images, labels = next(idx_pairs.stream(files.test_images, files.test_labels, TINY_TEST, None))
    return images, labels.astype(np.int64)


@pytest.fixture(scope="module")
def examples(digits: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """In three files and one that is empty, as a small split with many shards has it."""
    made = write_examples(tmp_path_factory.mktemp("examples") / "made", {features.TEST: digits}, files=3)
    folder = artifact_utils.get_split_uri([made], features.TEST)
    tf.io.TFRecordWriter(f"{folder}/data_tfrecord-00003-of-00004").close()
    return made


@pytest.fixture(scope="module")
def models(tiny_mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: `good`, and `bad`, which learned from far fewer digits; of 9 classes: `other`."""
    root = tmp_path_factory.mktemp("models")
    files = idx.find_files(tiny_mnist_dir)
    images, labels = next(idx_pairs.stream(files.train_images, files.train_labels, TINY_TRAIN, None))
    Nearest(images, labels).save(root / "good" / "Format-Serving")
    Nearest(images[:40], labels[:40]).save(root / "bad" / "Format-Serving")
    few = labels < 9
    Nearest(images[few], labels[few]).save(root / "other")
    return root


@pytest.fixture(scope="module")
def compared(examples: Artifact, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The bad model, with the good one in production."""
    root = tmp_path_factory.mktemp("compared")
    return judge(root, examples, models / "bad", models / "good" / "Format-Serving")


def test_every_record_is_tfx_s_own(
    digits: tuple[np.ndarray, np.ndarray], models: Path, tmp_path: Path
) -> None:
    images, labels = digits
    without = labels != 7  # a class that has no example
    data = write_examples(tmp_path / "examples", {features.TEST: (images[without], labels[without])})
    ours = Path(judge(tmp_path / "ours", data, models / "bad").folder)
    evaluation, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
    evaluation.uri, blessing.uri = str(tmp_path / "theirs"), str(tmp_path / "blessing")
    context = TfxExecutor.Context(
        beam_pipeline_args=list(LOCAL_BEAM_ARGS), tmp_dir=str(tmp_path), unique_id="1"
    )
    TfxExecutor(context).Do(
        {"examples": [data], "model": [model(models / "bad")]},
        {"evaluation": [evaluation], "blessing": [blessing]},
        properties(),
    )
    written = sorted(Path(evaluation.uri).iterdir())
    assert len(written) == 5
    for theirs in written:
        if theirs.suffix == ".json":
            assert (ours / theirs.name).read_text() == theirs.read_text()
        else:
            assert records(ours / theirs.name) == records(theirs), theirs.name
    assert len(records(ours / "metrics-00000-of-00001.tfrecord")) == 1 + 9


def records(path: Path) -> list[bytes]:
    """Sorted: TFMA writes slices in any order."""
    return sorted(record.numpy() for record in tf.data.TFRecordDataset(str(path)))


def test_another_eval_config_is_refused_and_not_ignored() -> None:
    other = tfma_files.eval_config()
    other.metrics_specs[0].metrics.add(class_name="AUC")
    with pytest.raises(tfma_files.UnknownEvalConfigError, match="measures one configuration"):
        Evaluator(
            examples=standard_artifacts.Examples,  # type: ignore[arg-type]
            model=standard_artifacts.Model,  # type: ignore[arg-type]
            split=features.TEST,
            eval_config=other,
            gates={},
        )
    asked = {"eval_config": proto_utils.proto_to_json(other)}
    with pytest.raises(tfma_files.UnknownEvalConfigError):
        Executor().Do({}, {}, properties() | asked)


def test_the_answers_are_the_model_s_own_and_know_their_examples(
    compared: Judged, digits: tuple[np.ndarray, np.ndarray], models: Path
) -> None:
    images, labels = digits
    expected = classifier.load(models / "bad" / "Format-Serving").of_images(images)
    files = sorted(Path(compared.folder).glob(answers.PATTERN))
    assert [path.name for path in files] == [f"answers-{n:05d}-of-00004.parquet" for n in range(3)]
    rows = [row for path in files for row in parquet.read_table(path).to_pylist()]
    assert sorted(row["id"] for row in rows) == sorted(f"test-images#{n}" for n in range(TINY_TEST))
    places = [int(row["id"].rpartition("#")[2]) for row in rows]
    assert [row["label"] for row in rows] == labels[places].tolist()
    np.testing.assert_allclose([row["probabilities"] for row in rows], expected[places], atol=1e-6)
    confidence = np.concatenate(list(answers.confidences(Path(compared.folder))))
    np.testing.assert_allclose(np.sort(confidence), np.sort(expected.max(axis=1)), atol=1e-6)
    assert not list(Path(compared.folder).glob(".*")), "nothing half-written stays"


def test_the_worst_mistakes_come_first_with_their_examples(
    compared: Judged, digits: tuple[np.ndarray, np.ndarray], models: Path
) -> None:
    images, labels = digits
    said = classifier.load(models / "bad" / "Format-Serving").of_images(images)
    of_label = said[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(said.argmax(axis=1) != labels)
    worst = wrong[np.argsort(of_label[wrong], kind="stable")][: answering.WORST]
    found = answers.read_mistakes(compared.folder)
    assert [int(mistake.id.rpartition("#")[2]) for mistake in found] == worst.tolist()
    example = tf.train.Example.FromString(found[0].example).features.feature
    assert example[features.IMAGE].bytes_list.value[0] == images[worst[0]].tobytes()
    assert found[0].label_probability == pytest.approx(of_label[worst[0]], abs=1e-6)


def test_figures_do_not_depend_on_how_examples_are_spread_over_files(
    compared: Judged, digits: tuple[np.ndarray, np.ndarray], models: Path, tmp_path: Path
) -> None:
    data = write_examples(tmp_path / "examples", {features.TEST: digits}, files=1)
    alone = judge(tmp_path, data, models / "bad", models / "good" / "Format-Serving").verdict
    assert alone.confusion == compared.verdict.confusion
    assert alone.robustness == compared.verdict.robustness
    assert alone.log_loss == pytest.approx(compared.verdict.log_loss, rel=1e-9)
    for one, other in zip(alone.gates, compared.verdict.gates, strict=True):
        assert (one.name, one.slice_name, one.passed) == (other.name, other.slice_name, other.passed)
        assert one.value == pytest.approx(other.value, abs=1e-6)
        assert one.interval is None or one.interval == pytest.approx(other.interval, abs=1e-6)


def test_a_model_that_knows_too_few_classes_fails(examples: Artifact, models: Path, tmp_path: Path) -> None:
    with pytest.raises(classifier.ModelError, match="it knows 9 classes, and labels go up to 9"):
        judge(tmp_path, examples, models / "other")


def test_tfma_measures_the_same(compared: Judged) -> None:
    found = compared.verdict
    result = tfma.load_eval_result(compared.folder)
    accuracies = {
        key: metrics[""][""][tfma_files.ACCURACY]["doubleValue"] for key, metrics in result.slicing_metrics
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


def test_a_gate_may_be_on_what_the_trainer_measured(
    examples: Artifact, models: Path, tmp_path: Path
) -> None:
    written = {"validation_metrics": {"loss": 0.2, "auc": 0.9}, "validation_examples": 30}
    (tmp_path / "metrics.json").write_text(json.dumps(written))
    open_gates = {"accuracy": 0, "class_accuracy": 0, "calibration_error": 1, "robustness_examples": 0}
    for least, blessed in ((0.9, True), (0.91, False)):
        thresholds = GatesConfig(**open_gates, metrics={"auc": least}, metrics_at_most={"loss": 0.2})
        root = tmp_path / str(least)
        judged = judge(root, examples, models / "good", gates=thresholds, model_run=tmp_path)
        assert judged.blessed is blessed
        assert [gate.metric for gate in judged.verdict.failed] == ["auc"] * (not blessed)


def lite_model(nearest: Nearest) -> bytes:
    """The same classifier for LiteRT, reading floats."""

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28, 1], tf.float32, name=features.IMAGE)])
    def floats(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(nearest.pixels(tf.cast(tf.round(image[..., 0] * 255), tf.uint8)))

    traced = floats.get_concrete_function()
    content: bytes = tf.lite.TFLiteConverter.from_concrete_functions([traced], nearest).convert()
    return content


@pytest.mark.parametrize("same", [True, False])
def test_a_lite_model_is_judged_on_the_same_examples(
    same: bool, examples: Artifact, digits: tuple[np.ndarray, np.ndarray], models: Path,
    tiny_mnist_dir: Path, tmp_path: Path,
) -> None:  # fmt: skip
    files = idx.find_files(tiny_mnist_dir)
    images, labels = next(idx_pairs.stream(files.train_images, files.train_labels, TINY_TRAIN, None))
    good, bad = Nearest(images, labels), Nearest(images[:40], labels[:40])
    good.save(tmp_path / "model")
    (tmp_path / "model" / features.LITE_FILE).write_bytes(lite_model(good if same else bad))

    judged = judge(tmp_path / "judged", examples, tmp_path / "model")

    found = judged.verdict.lite
    assert found is not None
    tests, expected = digits
    said = [
        classifier.load(models / name / "Format-Serving").of_images(tests).argmax(axis=1)
        for name in ("good", "good" if same else "bad")
    ]
    right = [answered == expected for answered in said]
    assert found.accuracy.value == pytest.approx(right[1].mean())
    assert found.agreement.value == pytest.approx((said[0] == said[1]).mean())
    assert found.accuracy_drop.value == pytest.approx(right[0].mean() - right[1].mean())
    assert found.accuracy.examples == len(expected)
    assert found.latency_ms > 0
    assert found.size_bytes == (tmp_path / "model" / features.LITE_FILE).stat().st_size
    assert found.saved_model_bytes > 10_000
    failed = [(gate.name, gate.slice_name) for gate in judged.verdict.failed]
    assert failed == ([] if same else [("accuracy_drop", features.LITE_FILE)])
    assert judged.blessed == same
