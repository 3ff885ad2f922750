"""What may be a base, what it gets, and what is said where it cannot be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.base_network import Base, BaseInput
from trainer.features import ImageShape
from trainer.model import build_network
from trainer.recipes import Params, resolve

SHAPE = ImageShape(16, 20, 3)
IMAGES = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)


def params(**fields: Any) -> Params:
    return resolve("retrain", precision="float32", **fields)


def saved(folder: Path, name: str = "my_own", channels: int = 3) -> str:
    """A .keras file of a small network that gets 8 x 8 pixels."""
    images = keras.Input((8, 8, channels))
    network = keras.Model(images, keras.layers.Conv2D(4, 3)(images), name=name)
    path = folder / "base.keras"
    network.save(path)
    return str(path)


def test_a_file_is_the_network_that_was_saved(tmp_path: Path) -> None:
    path = saved(tmp_path)
    base = Base.load(params(base=path, base_input="unit"), SHAPE)

    assert base.size == (8, 8)
    x = BaseInput(base)(IMAGES)
    expected = keras.ops.image.resize(IMAGES, (8, 8), antialias=True)
    np.testing.assert_allclose(x, expected, atol=1e-6)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(base.network(x), loaded(x))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("unit", lambda x: x),
        ("bytes", lambda x: x * 255),
        ("tf", lambda x: x * 2 - 1),
        ("torch", lambda x: (x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]),
        ("caffe", lambda x: x[..., ::-1] * 255 - [103.939, 116.779, 123.68]),
    ],
)
def test_images_are_scaled_as_the_base_was_trained(kind: str, expected: Any, tmp_path: Path) -> None:
    base = Base.load(params(base=saved(tmp_path), base_input=kind), SHAPE)
    images = IMAGES[:, :8, :8]
    np.testing.assert_allclose(BaseInput(base)(images), expected(images), atol=1e-4)


def test_grey_images_become_colour(tmp_path: Path) -> None:
    base = Base.load(params(base=saved(tmp_path), base_input="unit"), ImageShape(8, 8, 1))
    grey = IMAGES[:, :8, :8, :1]
    np.testing.assert_array_equal(BaseInput(base)(grey), np.repeat(grey, 3, axis=-1))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("mobilenet_1.00_96", "mobilenet"), ("mobilenetv2_0.35_96", "mobilenet_v2"), ("resnet50", "resnet50")],
)
def test_networks_of_keras_applications_are_known_by_their_names(
    name: str, kind: str, tmp_path: Path
) -> None:
    assert Base.load(params(base=saved(tmp_path, name)), SHAPE).input_kind == kind


@pytest.mark.slow
def test_weights_of_an_application_come_from_a_file(tmp_path: Path) -> None:
    drawn = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(96, 96, 3))
    drawn.save_weights(tmp_path / "drawn.weights.h5")

    base = Base.load(params(base="MobileNet", base_weights=str(tmp_path / "drawn.weights.h5")), SHAPE)

    assert (base.size, base.input_kind) == ((96, 96), "mobilenet")
    for ours, theirs in zip(base.network.get_weights(), drawn.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    x = BaseInput(base)(IMAGES)
    assert x.shape == (2, 96, 96, 3)
    assert -1 <= np.min(x) < -0.5 < 0.5 < np.max(x) <= 1


@pytest.mark.slow
def test_an_application_as_it_is_has_its_classes_and_its_size(tmp_path: Path) -> None:
    drawn = keras.applications.MobileNet(weights=None, classifier_activation=None)
    drawn.save_weights(tmp_path / "drawn.weights.h5")
    chosen = resolve("pretrained", base="MobileNet", base_weights=str(tmp_path / "drawn.weights.h5"))
    network = build_network(chosen, SHAPE, 1000)
    images = tf.image.resize(IMAGES, (224, 224)) * 2 - 1
    np.testing.assert_allclose(network(IMAGES), drawn(images), atol=1e-4)
    with pytest.raises(ValueError, match=r"trainer.base=MobileNet knows 1000 classes and the data have 10"):
        build_network(chosen, SHAPE, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "the network 'retrain' needs trainer.base: a .keras file, or a name of keras.applications"),
        ({"base": "MobilNet"}, "no .keras file and no network: did you mean 'MobileNet'?"),
        ({"base": "MobileNet", "base_weights": "/no/such"}, "base_weights=/no/such: there is no such file"),
        ({"base": "MobileNet", "base_weights": __file__}, "cannot be read"),
    ],
)
def test_what_is_no_base_is_one_clear_line(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=r"base|network") as caught:
        Base.load(params(**fields), SHAPE)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_says_too_little_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"nothing says what the network .my_own. gets: set trainer.base_input"
    ):
        Base.load(params(base=saved(tmp_path)), SHAPE)
    with pytest.raises(ValueError, match="the network gets no pictures in colour"):
        Base.load(params(base=saved(tmp_path, channels=1)), SHAPE)
    (tmp_path / "broken.keras").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"trainer.base=.*broken.keras: "):
        Base.load(params(base=str(tmp_path / "broken.keras")), SHAPE)


@pytest.mark.slow
def test_missing_weights_are_named_and_never_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match="its weights are not here") as caught:
        Base.load(params(base="MobileNetV2"), SHAPE)

    message = str(caught.value)
    assert "fetch https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/" in message
    assert f"to {tmp_path}/.keras/models/mobilenet_v2_weights" in message
    assert "or set trainer.base_weights" in message
