"""preprocessing_fn alone, and as the graph that Transform makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.training_data import Dataset
from trainer import features
from trainer.preprocessing import preprocessing_fn

SIZE = {"images": {"shape": [2, 3, 1]}}


def test_scales_and_reshapes_row_by_row() -> None:
    raw = tf.constant([[bytes([0, 51, 102, 153, 204, 255])]])

    out = preprocessing_fn({features.IMAGE: raw, features.LABEL: tf.constant([[4]], tf.int64)}, SIZE)

    assert set(out) == {features.IMAGE, features.LABEL}
    assert out[features.IMAGE].dtype == tf.float32
    np.testing.assert_allclose(
        out[features.IMAGE], [[[[0.0], [0.2], [0.4]], [[0.6], [0.8], [1.0]]]], rtol=1e-6
    )
    assert out[features.LABEL].dtype == tf.int64
    assert out[features.LABEL].numpy().tolist() == [4]


def test_takes_flat_inputs_and_none_at_all() -> None:
    one = preprocessing_fn(
        {features.IMAGE: tf.constant([bytes(6)]), features.LABEL: tf.constant([1], tf.int64)}, SIZE
    )
    none = preprocessing_fn(
        {features.IMAGE: tf.constant([], tf.string), features.LABEL: tf.constant([], tf.int64)}, SIZE
    )

    assert one[features.IMAGE].shape == (1, 2, 3, 1)
    assert none[features.IMAGE].shape == (0, 2, 3, 1)
    assert none[features.LABEL].shape == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 5, 7])
def test_refuses_another_length(length: int) -> None:
    inputs = {features.IMAGE: tf.constant([bytes(length)]), features.LABEL: tf.constant([1], tf.int64)}

    with pytest.raises(tf.errors.InvalidArgumentError, match="must be 2 x 3 pixels, 6 bytes"):
        tf.function(lambda: preprocessing_fn(inputs, SIZE))()


def test_graph_equals_function(digits: Dataset) -> None:
    inputs = {
        features.IMAGE: tf.constant(digits.raw)[:, tf.newaxis],
        features.LABEL: tf.constant(digits.labels)[:, tf.newaxis],
    }

    in_graph = digits.transform.transform_features_layer()(inputs)
    alone = preprocessing_fn(inputs, {"images": {"shape": [28, 28, 1]}})

    # The optimised graph multiplies where the function divides.
    np.testing.assert_allclose(in_graph[features.IMAGE], alone[features.IMAGE], rtol=1e-6)
    np.testing.assert_array_equal(in_graph[features.LABEL], alone[features.LABEL])
    np.testing.assert_array_equal(
        np.round(alone[features.IMAGE].numpy()[..., 0] * 255).astype(np.uint8), digits.images
    )


@pytest.mark.slow
def test_graph_declares_its_shapes(stripes: Dataset) -> None:
    spec = stripes.transform.transformed_feature_spec()

    assert spec[features.IMAGE] == tf.io.FixedLenFeature([20, 16, 1], tf.float32)
    assert spec[features.LABEL] == tf.io.FixedLenFeature([], tf.int64)


def test_graph_refuses_another_length(digits: Dataset) -> None:
    layer = digits.transform.transform_features_layer()

    with pytest.raises(tf.errors.InvalidArgumentError, match="28 x 28 pixels, 784 bytes"):
        layer({features.IMAGE: tf.constant([[b"short"]])})


def test_colour_is_decoded_too() -> None:
    raw = tf.constant([bytes(range(18))])
    config = {"images": {"shape": [2, 3, 3]}}
    image = preprocessing_fn({features.IMAGE: raw, features.LABEL: tf.constant([1], tf.int64)}, config)
    np.testing.assert_allclose(image[features.IMAGE][0, 1, 2] * 255, [15, 16, 17], rtol=1e-6)


@pytest.mark.slow
def test_picture_files_are_decoded_and_resized() -> None:
    files = [tf.io.encode_png(tf.fill([side, side, 3], tf.constant(51, tf.uint8))) for side in (4, 9)]
    config = {"images": {"shape": [4, 4, 3], "encoded": True, "fit": "crop"}}
    inputs = {features.IMAGE: tf.stack(files), features.LABEL: tf.constant([0, 1], tf.int64)}
    image = preprocessing_fn(inputs, config)[features.IMAGE]
    assert image.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(image, 0.2, rtol=1e-6)
