"""run_fn with a base that was trained before, or is taken as it is."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training_data import Dataset
from trainer import user_functions
from trainer.base_network import Base
from trainer.features import ImageShape
from trainer.model import build_network
from trainer.recipes import resolve
from trainer.train import run_fn


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Untrained layers: enough for features by which digits can be told apart."""
    keras.utils.set_random_seed(0)
    images = keras.Input((28, 28, 3))
    x = keras.layers.Conv2D(32, 5, strides=2, activation="relu", name="conv1")(images)
    x = keras.layers.Conv2D(64, 5, strides=2, activation="relu", name="conv2")(x)
    x = keras.layers.Flatten()(x)
    path = tmp_path_factory.mktemp("base") / "base.keras"
    keras.Model(images, x, name="small").save(path)
    return str(path)


@pytest.mark.parametrize("tuned", [0, 1])
def test_new_categories_are_learned_on_a_base(
    tuned: int, base: str, digits: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = digits.fn_args(
        tmp_path, "retrain", base=base, base_input="unit", fine_tune=tuned, flip=False, mirror=False,
        epochs=30, fine_tune_epochs=3, fine_tune_learning_rate=1e-3, precision="float32",
    )  # fmt: skip
    with caplog.at_level("INFO"):
        run_fn(arguments)

    written = json.loads((tmp_path / "model_run" / "metrics.json").read_text())
    assert written["validation_accuracy"] > 0.85
    assert written["train_examples"] == len(digits.labels)
    assert "features of 800 images" in caplog.text
    assert ("head" in written) == bool(tuned)
    saved = tf.saved_model.load(str(tmp_path / "Format-Serving"))
    answers = saved.signatures["pixels"](tf.constant(digits.images))
    accuracy = np.mean(answers["classes"].numpy() == digits.labels)
    # What is served is what was measured: the validation split is the training split here.
    assert accuracy == pytest.approx(written["validation_accuracy"], abs=0.006)
    layers = keras.models.load_model(base)
    exported = [variable.numpy() for variable in saved._weights.values()]
    for name, stays in (("conv1", True), ("conv2", not tuned)):
        kernel = layers.get_layer(name).kernel.numpy()
        assert any(np.array_equal(kernel, variable) for variable in exported) == stays
    # Its last checkpoint is one that another run may go on from.
    params = resolve("retrain", **arguments.custom_config["overrides"])
    settings = arguments.custom_config | {"continue": True}
    user_functions.check(settings, params, ImageShape(28, 28, 1), 10, arguments.model_run_dir)


@pytest.mark.parametrize("softmax", [True, False])
def test_a_network_with_its_own_classes_is_exported_as_it_is(
    softmax: bool, digits: Dataset, tmp_path: Path
) -> None:
    images = keras.Input((14, 14, 3))
    x = keras.layers.Flatten()(images)
    x = keras.layers.Dense(10, activation="softmax" if softmax else None)(x)
    network = keras.Model(images, x, name="small")
    network.save(tmp_path / "whole.keras")
    path = str(tmp_path / "whole.keras")

    run_fn(digits.fn_args(tmp_path, "pretrained", base=path, base_input="tf", precision="float32"))

    written = json.loads((tmp_path / "model_run" / "metrics.json").read_text())
    saved = tf.saved_model.load(str(tmp_path / "Format-Serving"))
    answers = saved.signatures["pixels"](tf.constant(digits.images))
    grey = tf.repeat(digits.images[..., None] / 255, 3, axis=-1)
    small = tf.image.resize(tf.cast(grey, tf.float32), (14, 14), antialias=True)
    expected = network(small * 2 - 1).numpy()
    if not softmax:
        expected = tf.nn.softmax(expected).numpy()
    np.testing.assert_allclose(answers["probabilities"], expected, atol=1e-5)
    accuracy = np.mean(expected.argmax(axis=1) == digits.labels)
    assert written["validation_accuracy"] == pytest.approx(accuracy, abs=0.003)
    assert (written["steps"], written["train_seconds"]) == (0, 0)


def test_a_network_of_other_classes_is_refused(base: str, digits: Dataset, tmp_path: Path) -> None:
    # What the base ends with is 1,024 features, which are taken for classes.
    with pytest.raises(ValueError, match=r"knows 1024 classes and the data have 10: labels must"):
        run_fn(digits.fn_args(tmp_path, "pretrained", base=base, base_input="unit"))


def test_a_model_of_an_earlier_run_is_a_base(digits: Dataset, stripes: Dataset, tmp_path: Path) -> None:
    run_fn(digits.fn_args(tmp_path / "first", "fast", precision="float32", train_steps=40))
    earlier = str(tmp_path / "first" / "Format-Serving")
    expected = tf.saved_model.load(earlier).signatures["pixels"](tf.constant(digits.images))

    # As it is, it answers as it did.
    whole = resolve("pretrained", base=earlier)
    network = build_network(whole, ImageShape(28, 28, 1), 10)
    floats = digits.images[..., None].astype(np.float32) / 255
    np.testing.assert_allclose(network(floats), expected["logits"], atol=1e-4)

    # For other images and classes it gets a new last layer.
    second = stripes.fn_args(
        tmp_path / "second", "retrain", base=earlier, flip=False, mirror=False, epochs=40, dropout=0.0,
        precision="float32",
    )  # fmt: skip
    run_fn(second)
    written = json.loads((tmp_path / "second" / "model_run" / "metrics.json").read_text())
    assert written["validation_accuracy"] > 0.8
    # Which is a base again.
    again = Base.load(
        resolve("retrain", base=str(tmp_path / "second" / "Format-Serving")), ImageShape(9, 9)
    )
    assert (again.size, again.channels, again.input_kind) == ((20, 16), 1, "unit")


def test_a_model_of_a_function_that_is_not_ours_is_no_base(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="this is no model of a run here whose network is one of trainer"):
        Base.load(resolve("retrain", base=str(tmp_path / "other")), ImageShape(28, 28))
