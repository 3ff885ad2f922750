"""LiteRT models: what they answer, and how large they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.shared.lite import LiteModel, find
from trainer import lite, model
from trainer.estimator import ModeKeys
from trainer.features import IMAGE, PROBABILITIES, ImageShape
from trainer.recipes import resolve

SHAPES = {"fast": ImageShape(28, 28, 1), "cifar": ImageShape(16, 16, 3), "residual": ImageShape(32, 32, 3)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "kind", "tolerance"),
    [
        ("fast", "float16", 0.002),
        ("fast", "int8", 0.05),
        ("cifar", "float16", 0.01),
        ("residual", "int8", 0.1),
    ],
)
def test_it_answers_as_the_model_does(recipe: str, kind: str, tolerance: float, tmp_path: Path) -> None:
    shape = SHAPES[recipe]
    made = model.build_model(resolve(recipe, precision="float32"), shape, 10, steps=1)
    pixels = np.random.default_rng(0).integers(0, 256, (20, *shape), np.uint8)
    images = tf.constant(pixels, tf.float32) / 255
    for _ in range(3):  # so that running means are not those of no image
        made.network(images, training=True)
    expected = made.spec({IMAGE: images}, None, ModeKeys.PREDICT).prediction_dict[PROBABILITIES]

    lite.write(str(tmp_path), made, shape, kind, images)
    file = find(tmp_path)
    assert file is not None
    answered = LiteModel(file)

    given = pixels[..., 0] if shape.channels == 1 else pixels
    np.testing.assert_allclose(answered.of_images(given), expected, atol=tolerance)
    np.testing.assert_allclose(answered.of_images(given[:1]), expected[:1], atol=tolerance)
    assert answered.latency_ms(given[0]) > 0
    weights = sum(np.prod(variable.shape) for variable in made.network.trainable_variables)
    assert file.stat().st_size < {"float16": 2.3, "int8": 1.3}[kind] * weights + 30_000
