"""run_fn end to end on small data."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from components.shared import lite
from tests.training_data import SCHEMA, Dataset, example, write_records
from trainer import devices, signatures, warmup
from trainer.callbacks.progress import NonFiniteLossError
from trainer.features import KEPT_FOLDER
from trainer.train import run_fn

QUICK = {"batch_size": 50, "precision": "float32", "shift": 0}


def metrics(output: Path) -> dict[str, Any]:
    return json.loads((output / "model_run" / "metrics.json").read_text())


def predict(output: Path, images: np.ndarray) -> np.ndarray:
    saved = tf.saved_model.load(str(output / "Format-Serving"))
    return saved.signatures["pixels"](tf.constant(images))["classes"].numpy()


def test_learns_exports_and_reports(
    digits: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run_fn(digits.fn_args(tmp_path, **QUICK, train_steps=60, validate_each_epoch=True))

    assert np.mean(predict(tmp_path, digits.images) == digits.labels) > 0.9
    written = metrics(tmp_path)
    assert (written["steps"], written["precision"]) == (60, "float32")
    assert written["validation_accuracy"] > 0.9
    assert 0 < written["validation_loss"] < 1
    assert written["train_seconds"] > 0
    assert written["images_per_s"] > 0
    assert len(written["history"]["val_accuracy"]) == 8  # 400 digits are 8 steps: 60 steps are 7.5 epochs
    assert list((tmp_path / "model_run").rglob("events.out.tfevents.*"))

    progress = [r.progress for r in caplog.records if r.name == "trainer.progress"]  # type: ignore[attr-defined]
    assert set(progress[-1]) == {
        "step",
        "steps",
        "epoch",
        "epochs",
        "loss",
        "metrics",
        "images_per_s",
    }
    assert set(progress[-1]["metrics"]) == {"accuracy"}
    assert (progress[-1]["step"], progress[-1]["steps"]) == (60, 60)
    assert (progress[-1]["epoch"], progress[-1]["epochs"]) == (8, 8)
    device = [r.getMessage() for r in caplog.records if "training on" in r.getMessage()]
    assert len(device) == 1
    assert "float32" in device[0]


def test_a_data_set_of_another_size_goes_through(stripes: Dataset, tmp_path: Path) -> None:
    run_fn(stripes.fn_args(tmp_path, **QUICK, train_steps=40))

    classes = predict(tmp_path, stripes.images)
    assert classes.shape == (210,)
    assert np.mean(classes == stripes.labels) > 0.9
    saved = tf.saved_model.load(str(tmp_path / "Format-Serving"))
    assert saved.signatures["pixels"].structured_outputs["logits"].shape.as_list() == [None, 7]


def test_the_tutorial_recipe_goes_through(digits: Dataset, tmp_path: Path) -> None:
    arguments = digits.fn_args(tmp_path, "tutorial")
    arguments.train_steps = 2  # TFX's own arguments come before the recipe's

    run_fn(arguments)

    assert metrics(tmp_path)["steps"] == 2
    assert predict(tmp_path, digits.images[:3]).shape == (3,)


@pytest.mark.parametrize("steps", [1, 30], ids=["after the last update", "midway"])
def test_a_loss_that_is_not_finite_stops_the_run(digits: Dataset, tmp_path: Path, steps: int) -> None:
    arguments = digits.fn_args(
        tmp_path,
        "tutorial",
        batch_size=50,
        learning_rate=1e38,
        train_steps=steps,
        precision="float32",
    )

    with pytest.raises(NonFiniteLossError, match=r"at step \d+: likely causes .* learning rate") as caught:
        run_fn(arguments)

    assert 1 <= caught.value.step <= 3
    assert not (tmp_path / "Format-Serving").exists()
    assert not (tmp_path / "model_run" / "metrics.json").exists()


def test_wrong_settings_are_refused_before_anything_runs(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown recipe 'nobody'"):
        run_fn(digits.fn_args(tmp_path, "nobody"))
    with pytest.raises(ValueError, match="has no field 'sed'"):
        run_fn(digits.fn_args(tmp_path, sed=3))
    assert list(tmp_path.iterdir()) == []


def test_a_schema_without_a_class_range_is_refused(digits: Dataset, tmp_path: Path) -> None:
    arguments = digits.fn_args(tmp_path)
    arguments.schema_path = str(tmp_path / "schema.pbtxt")
    (tmp_path / "schema.pbtxt").write_text('feature { name: "label" type: INT }')

    with pytest.raises(ValueError, match="'label' has no int_domain"):
        run_fn(arguments)


def test_a_training_image_of_another_size_is_named(digits: Dataset, tmp_path: Path) -> None:
    write_records(tmp_path / "bad", [example(bytes(783), 1)] * 60)
    (tmp_path / "schema.pbtxt").write_text(SCHEMA.format(last=9))
    arguments = digits.fn_args(tmp_path, **QUICK, train_steps=1)
    arguments.train_files = [str(tmp_path / "bad")]

    with pytest.raises(tf.errors.InvalidArgumentError, match="28 x 28 pixels, 784 bytes"):
        run_fn(arguments)


def test_own_functions_by_dotted_path(stripes: Dataset, tmp_path: Path) -> None:
    arguments = stripes.fn_args(tmp_path, **QUICK, train_steps=40)
    arguments.custom_config |= {
        "model_fn": "tests.unit.trainer.own_model.model_fn",
        "build_network": "tests.unit.trainer.own_model.build_network",
    }
    run_fn(arguments)
    saved = tf.saved_model.load(str(tmp_path / "Format-Serving"))
    answers = saved.signatures["pixels"](tf.constant(stripes.images))
    assert np.mean(answers["classes"].numpy() == stripes.labels) > 0.9
    assert np.allclose(answers["margin"], answers["logits"].numpy().max(axis=1))


def test_a_finished_run_goes_on_as_if_it_had_not_ended(digits: Dataset, tmp_path: Path) -> None:
    """With momentum and dropout, whose state is more than the weights; its checkpoints can be measured."""

    def run(name: str, base: str = "", checkpoint: str = "", **overrides: Any) -> Path:
        plain = {"batch_size": 50, "precision": "float32", "momentum": 0.9, "train_steps": 10}
        arguments = digits.fn_args(tmp_path / name, "tutorial", **{**plain, **overrides})
        arguments.custom_config |= {"run_config": {"keep_checkpoint_max": 2, "save_checkpoints_steps": 4}}
        if base:
            arguments.base_model = str(tmp_path / base / "model_run" / "Format-Serving")  # as TFX gives it
            arguments.custom_config |= {
                "warm_start_checkpoint": checkpoint,
                "continue": not checkpoint,
                "evaluate_only": bool(checkpoint),
            }
        run_fn(arguments)
        return tmp_path / name

    whole, first = run("whole", train_steps=20), run("first")
    more = run("more", "first")
    written = metrics(more)
    assert (written["steps"], written["resumed_at_step"]) == (20, 10)
    assert written["validation_loss"] == pytest.approx(metrics(whole)["validation_loss"], abs=1e-5)
    assert np.mean(predict(more, digits.images) == predict(whole, digits.images)) > 0.99
    kept = [path.name for path in sorted((first / "model_run" / KEPT_FOLDER).iterdir())]
    assert kept == ["checkpoint-10.npz", "checkpoint-8.npz"]

    last, earlier = (run(name, "first", f"checkpoint-{name}.npz") for name in ("10", "8"))
    assert metrics(last)["validation_loss"] == pytest.approx(metrics(first)["validation_loss"], abs=1e-6)
    assert metrics(last)["weights_sha256"] == metrics(first)["weights_sha256"]
    assert metrics(earlier)["steps"] == 8
    assert metrics(earlier)["validation_loss"] > metrics(last)["validation_loss"]


def test_a_run_that_was_killed_after_its_last_step_makes_none_more(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> dict[str, Any]:
        # An epoch has 8 steps: the second is a half.
        arguments = digits.fn_args(tmp_path, "tutorial", batch_size=50, precision="float32", train_steps=12)
        arguments.model_run_dir = str(tmp_path / "model_run" / name)
        run_fn(arguments)
        return json.loads(Path(arguments.model_run_dir, "metrics.json").read_text())

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(signatures, "export", killed)
        with pytest.raises(KeyboardInterrupt):
            run("1")
    again = run("2")
    assert (again["steps"], again["resumed_at_step"]) == (12, 12)
    kept = list((tmp_path / "model_run").glob(f"*/{KEPT_FOLDER}/*"))
    assert kept == [tmp_path / "model_run" / "2" / KEPT_FOLDER / "checkpoint-12.npz"]
    afresh = run("3")
    assert (afresh["steps"], afresh["resumed_at_step"]) == (12, 0)
    assert again["validation_loss"] == pytest.approx(afresh["validation_loss"], abs=1e-6)


def test_a_training_begins_with_an_exported_model(digits: Dataset, tmp_path: Path) -> None:
    run_fn(digits.fn_args(tmp_path / "1", **QUICK, train_steps=60))
    arguments = digits.fn_args(tmp_path / "2", **QUICK, train_steps=1, learning_rate=1e-9, seed=5)
    arguments.base_model = str(tmp_path / "1" / "Format-Serving")
    run_fn(arguments)
    # With its running means too.
    before, after = metrics(tmp_path / "1"), metrics(tmp_path / "2")
    assert after["validation_accuracy"] == pytest.approx(before["validation_accuracy"], abs=0.1) != 0.1
    assert after["validation_accuracy"] > 0.8


@pytest.mark.filterwarnings("ignore:.*deprecated.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*will be removed.*:UserWarning")
def test_a_function_for_tensorflow_1_goes_through_as_it_is(digits: Dataset, tmp_path: Path) -> None:
    arguments = digits.fn_args(
        tmp_path, "tutorial", batch_size=50, train_steps=30, learning_rate=0.1, validate_each_epoch=True
    )
    arguments.custom_config["model_fn"] = "tests.oracle.cnn_mnist.cnn_model_fn"
    run_fn(arguments)

    written = metrics(tmp_path)
    assert (written["steps"], written["precision"]) == (30, "float32")
    assert set(written["validation_metrics"]) == {"loss", "accuracy", "global_step"}
    assert written["validation_metrics"]["global_step"] == 30
    saved = tf.saved_model.load(str(tmp_path / "Format-Serving"))
    answers = saved.signatures["pixels"](tf.constant(digits.images))
    assert set(answers) == {"classes", "label", "probabilities"}
    right = np.mean(answers["classes"].numpy() == digits.labels)
    assert right == pytest.approx(written["validation_accuracy"], abs=1e-6)
    assert right > 0.3


def test_what_a_function_exports_logs_and_summarises_arrives(
    stripes: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = stripes.fn_args(tmp_path, **QUICK, train_steps=6)
    arguments.custom_config |= {
        "model_fn": "tests.integration.trainer.talking_model.model_fn",
        "build_network": "tests.unit.trainer.own_model.build_network",
        "callbacks": "tests.integration.trainer.talking_model.make_callbacks",
        "run_config": {"log_step_count_steps": 2},
    }
    with caplog.at_level(logging.INFO):
        run_fn(arguments)

    folder = tmp_path / "Format-Serving"
    defs = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    methods = {
        name: definition.method_name.rpartition("/")[2]
        for name, definition in defs.meta_graphs[0].signature_def.items()
        if name in ("best", "margin", "raw")
    }
    assert methods == {"best": "classify", "margin": "regress", "raw": "predict"}
    signatures = tf.saved_model.load(str(folder)).signatures
    serialized = tf.constant([example(stripes.images[0].tobytes(), 0)])
    assert signatures["best"](inputs=serialized)["scores"].shape == (1, 7)
    assert signatures["margin"](inputs=serialized)["outputs"].shape == (1,)
    assert set(signatures["raw"](examples=serialized)) == {"output"}
    warm = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(folder / warmup.WARMUP_FILE))
    ]
    kinds = {log.WhichOneof("log_type") for log in warm}
    assert kinds == {"predict_log", "classify_log", "regress_log"}

    lines = [record.getMessage() for record in caplog.records]
    assert next(line for line in lines if "norm" in line).startswith("step 1: norm ")
    steps = [line.split(":")[0] for line in lines if line.startswith("step ") and "images/s" in line]
    assert steps == ["step 2 of 6", "step 4 of 6", "step 6 of 6"]
    assert lines.count("an epoch has ended") == 2  # 210 images in batches of 50: five steps
    tags = {
        value.tag
        for file in (tmp_path / "model_run").rglob("events.out.tfevents.*")
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert {"norm", "largest_logit", "epoch_auc"} <= tags
    written = metrics(tmp_path)["validation_metrics"]
    assert set(written) == {"loss", "auc", "global_step"}
    assert 0.4 < written["auc"] <= 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("model_fn", "give package.module.function"),
        ("no.such.module.model_fn", "No module named 'no'"),
        ("tests.unit.trainer.own_model.modelfn", "has no attribute 'modelfn'"),
        ("tests.unit.trainer.own_model.NOT_A_FUNCTION", "this is no function but a int"),
    ],
)
def test_a_wrong_path_is_one_clear_line(digits: Dataset, tmp_path: Path, path: str, said: str) -> None:
    arguments = digits.fn_args(tmp_path)
    arguments.custom_config["model_fn"] = path
    with pytest.raises(ValueError, match=f"^trainer.model_fn={path}: .*{said}"):
        run_fn(arguments)
    assert list(tmp_path.iterdir()) == []


def test_gpus_that_are_asked_for_and_not_there_stop_the_run_at_once(
    digits: Dataset, tmp_path: Path
) -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    arguments = digits.fn_args(tmp_path)
    arguments.custom_config["gpus"] = 2
    with pytest.raises(devices.MissingGpuError, match=r"trainer\.gpus asks for 2 and TensorFlow sees 0"):
        run_fn(arguments)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_curves_and_pictures(digits: Dataset, tmp_path: Path) -> None:
    run_fn(digits.fn_args(tmp_path, **{**QUICK, "shift": 1}, epochs=2, validate_each_epoch=True))
    written: dict[str, set[int]] = {}
    images = {}
    for file in (tmp_path / "model_run").rglob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                written.setdefault(f"{file.parent.name}/{value.tag}", set()).add(event.step)
                if value.metadata.plugin_data.plugin_name == "images":
                    width, height, *_ = tf.make_ndarray(value.tensor)
                    images[value.tag.partition("/")[0]] = (int(width), int(height))
    for tag in (
        "train/epoch_loss",
        "train/epoch_accuracy",
        "train/epoch_learning_rate",
        "train/images_per_s",
    ):
        assert written[tag] == {0, 1}, (tag, written)
    for tag in ("validation/epoch_loss", "validation/epoch_accuracy", "validation/confusion"):
        assert written[tag] == {0, 1}, (tag, written)
    assert images == {"augmented": (28, 28), "confusion": (160, 160)}
    confusion = np.array(metrics(tmp_path)["validation_confusion"])
    assert confusion.sum() == len(digits.labels)
    accuracy = confusion.trace() / confusion.sum()
    assert accuracy == pytest.approx(metrics(tmp_path)["validation_accuracy"], abs=1e-6)
    assert confusion.sum(axis=1).tolist() == np.bincount(digits.labels).tolist()


def test_a_lite_model_lies_next_to_the_saved_model(digits: Dataset, tmp_path: Path) -> None:
    arguments = digits.fn_args(tmp_path, **QUICK, train_steps=60)
    arguments.custom_config["lite"] = "int8"
    run_fn(arguments)

    file = lite.find(tmp_path / "Format-Serving")
    assert file is not None
    assert file.stat().st_size < 300_000  # 240,906 parameters
    said = lite.LiteModel(file).of_images(digits.images).argmax(axis=1)
    assert np.mean(said == predict(tmp_path, digits.images)) > 0.97
