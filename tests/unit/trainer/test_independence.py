"""Rows that depend on each other are found, however many of them there are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from trainer import features, independence

ROWS = np.random.default_rng(0).integers(0, 256, (5, 4, 4), np.uint8)


def traced(function: Callable[[tf.Tensor], tf.Tensor]) -> tf.types.experimental.ConcreteFunction:
    """A signature of images [N, 4, 4]."""
    spec = tf.TensorSpec([None, 4, 4], tf.uint8, features.IMAGE)
    whole = tf.function(lambda image: {"y": function(tf.cast(image, tf.float32))}, autograph=False)
    return whole.get_concrete_function(spec)


@pytest.mark.parametrize(
    ("function", "independent"),
    [
        (lambda x: tf.reduce_mean(x, [1, 2]), True),
        (lambda x: tf.argmax(tf.reshape(x, [-1, 16]), 1), True),
        (lambda x: x / tf.reduce_sum(x), False),
        (lambda x: x - tf.reduce_mean(x, 0), False),
        (lambda x: tf.cumsum(tf.reduce_mean(x, [1, 2])), False),
        (lambda x: tf.range(tf.shape(x)[0]), False),
        (lambda x: tf.fill([tf.shape(x)[0]], tf.shape(x)[0]), False),
        (lambda x: tf.reduce_sum(x)[None], False),
    ],
)
def test_what_depends_on_its_company_is_found(
    function: Callable[[tf.Tensor], tf.Tensor], independent: bool
) -> None:
    assert independence.are_independent(traced(function), ROWS) is independent


def test_the_signatures_are_written_with_the_model_that_they_are_of(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"a model")
    alone, together = traced(lambda x: tf.reduce_mean(x, [1, 2])), traced(lambda x: x / tf.reduce_sum(x))
    shape = features.ImageShape(4, 4, 1)
    signatures = {features.SIGNATURE_EXAMPLES: together, features.SIGNATURE_DECODE: together}
    for function, expected in (
        (alone, [features.SIGNATURE_EXAMPLES, features.SIGNATURE_DECODE, features.SIGNATURE_PIXELS]),
        (together, [features.SIGNATURE_DECODE]),
    ):
        signatures[features.SIGNATURE_PIXELS] = function
        independence.write(str(tmp_path), signatures, features.ImageInput(shape))
        document = json.loads((tmp_path / independence.FILE).read_text())
        assert document == {
            "saved_model_sha256": hashlib.sha256(b"a model").hexdigest(),
            "signatures": expected,
        }
