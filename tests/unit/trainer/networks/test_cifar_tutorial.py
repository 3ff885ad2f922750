"""The deep CNN tutorial's network and training, to the last detail."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import features
from trainer.estimator import ModeKeys
from trainer.features import ImageShape
from trainer.model import build_network, model_fn
from trainer.optimizers import build_optimizer
from trainer.recipes import resolve

PARAMS = resolve("cifar-tutorial", precision="float32")
SHAPE = ImageShape(32, 32, 3)
IMAGES = np.random.default_rng(0).random((4, *SHAPE)).astype(np.float32)
LABELS = tf.constant([0, 1, 2, 3], tf.int64)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return build_network(PARAMS, SHAPE, 10)


def test_the_network_layer_by_layer(network: keras.Model) -> None:
    described = [
        (layer.name, layer.count_params(), tuple(layer.output.shape[1:])) for layer in network.layers
    ]

    assert described == [
        ("image", 0, (32, 32, 3)),
        ("crop", 0, (24, 24, 3)),
        ("flip", 0, (24, 24, 3)),
        ("brightness", 0, (24, 24, 3)),
        ("contrast", 0, (24, 24, 3)),
        ("standardization", 0, (24, 24, 3)),
        ("conv1", 4_864, (24, 24, 64)),
        ("pool1", 0, (12, 12, 64)),
        ("norm1", 0, (12, 12, 64)),
        ("conv2", 102_464, (12, 12, 64)),
        ("norm2", 0, (12, 12, 64)),
        ("pool2", 0, (6, 6, 64)),
        ("flatten", 0, (2304,)),
        ("local3", 885_120, (384,)),
        ("local4", 73_920, (192,)),
        ("logits", 1_930, (10,)),
    ]
    assert sum(np.prod(variable.shape) for variable in network.trainable_variables) == 1_068_298


def test_variables_begin_as_the_tutorials(network: keras.Model) -> None:
    for name, deviation, bias in (
        ("conv1", 0.05, 0.0),
        ("conv2", 0.05, 0.1),
        ("local3", 0.04, 0.1),
        ("local4", 0.04, 0.1),
        ("logits", 1 / 192, 0.0),
    ):
        kernel, biases = network.get_layer(name).get_weights()
        assert np.abs(kernel).max() <= 2 * deviation
        # The deviation of a normal distribution that is cut at two deviations.
        assert kernel.std() == pytest.approx(0.88 * deviation, rel=0.05)
        np.testing.assert_allclose(biases, bias)


def test_answers_come_from_the_middle_standardised(network: keras.Model) -> None:
    middle = tf.image.per_image_standardization(IMAGES[:, 4:28, 4:28] * 255)

    layer = keras.Model(network.input, network.get_layer("standardization").output)

    np.testing.assert_allclose(layer(IMAGES), middle, atol=1e-5)


def test_the_training_loss_has_half_of_the_squares_of_the_dense_kernels() -> None:
    losses = {}
    plain = resolve("cifar-tutorial", precision="float32", flip=False, brightness=0, contrast=0, crop=0)
    whole = build_network(plain, ImageShape(24, 24, 3), 10)
    inputs = {features.IMAGE: tf.constant(IMAGES[:, 4:28, 4:28])}
    for mode in (ModeKeys.TRAIN, ModeKeys.EVAL):
        losses[mode] = model_fn(inputs, LABELS, mode, plain, whole).loss
    decay = sum(
        0.004 * np.sum(whole.get_layer(name).kernel.numpy() ** 2) / 2 for name in ("local3", "local4")
    )

    assert float(losses[ModeKeys.TRAIN] - losses[ModeKeys.EVAL]) == pytest.approx(decay, rel=1e-4)
    assert decay > 0.1


def test_steps_batch_and_learning_rate() -> None:
    optimizer = build_optimizer(PARAMS, PARAMS.steps(45_833))

    assert (PARAMS.batch_size, PARAMS.steps(45_833)) == (128, 100_000)
    assert (optimizer.momentum, optimizer.weight_decay, optimizer.use_ema) == (0, None, True)
    rate = optimizer._learning_rate
    assert [float(rate(step)) for step in (0, 136_717, 136_718)] == pytest.approx([0.1, 0.1, 0.01])


def test_the_moving_average_is_tf_train_s_with_num_updates() -> None:
    optimizer = build_optimizer(resolve("cifar-tutorial", schedule="constant", schedule_arguments={}), 1)
    ours = keras.Variable(1.0)
    theirs = tf.Variable(1.0)
    step = tf.Variable(0, dtype=tf.int64)
    average = tf.train.ExponentialMovingAverage(0.9999, step)
    average.apply([theirs])
    for _ in range(20):
        optimizer.apply([tf.constant(-1.0)], [ours])
        theirs.assign(ours.numpy())
        step.assign_add(1)
        average.apply([theirs])

    expected = float(average.average(theirs))
    assert float(optimizer._model_variables_moving_average[0]) == pytest.approx(expected, rel=0.02)
    assert 1.0 < expected < float(ours) - 0.1
