"""run_fn with a base that was trained before, or is taken as it is."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training_data import Dataset
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
        epochs=30, precision="float32",
    )  # fmt: skip
    with caplog.at_level("INFO"):
        run_fn(arguments)

    written = json.loads((tmp_path / "model_run" / "metrics.json").read_text())
    assert written["validation_accuracy"] > 0.85
    assert written["train_examples"] == len(digits.labels)
    assert ("features of 800 images" in caplog.text) == (not tuned)
    saved = tf.saved_model.load(str(tmp_path / "Format-Serving"))
    answers = saved.signatures["pixels"](tf.constant(digits.images))
    accuracy = np.mean(answers["classes"].numpy() == digits.labels)
    # What is served is what was measured: the validation split is the training split here.
    assert accuracy == pytest.approx(written["validation_accuracy"], abs=0.006)
    frozen = keras.models.load_model(base).get_layer("conv1").kernel.numpy()
    assert any(np.array_equal(frozen, variable.numpy()) for variable in saved._weights.values())
