"""Steps of convolutions are orthogonal, all others SGD's."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from trainer.muon import MuonSGD, orthogonal

SIDES = st.integers(1, 6)


def kernel(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(SIDES, SIDES, st.integers(1, 24), st.integers(0, 9))
def test_a_direction_is_nearly_orthogonal(side: int, channels: int, filters: int, seed: int) -> None:
    made = orthogonal(tf.constant(kernel(side, side, channels, filters, seed=seed)), 5).numpy()
    assert made.shape == (side, side, channels, filters)
    values = np.linalg.svd(made.reshape(-1, filters), compute_uv=False)
    # Tiny ones take more rounds; none of a random matrix's may stay where it was, or grow.
    assert values.max() < 1.3
    assert np.median(values) > 0.5


@pytest.mark.parametrize(
    "wrong", [{"kernel_ratio": 0.0}, {"iterations": 0}, {"kernel_momentum": 1.0}, {"kernel_ratio": "a"}]
)
def test_what_it_cannot_do_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} "):
        MuonSGD(**wrong)


def test_directions_of_the_singular_vectors_stay() -> None:
    matrix = kernel(1, 1, 4, 4)
    left, _, right = np.linalg.svd(matrix[0, 0])
    turned = left.T @ orthogonal(tf.constant(matrix), 8).numpy()[0, 0] @ right.T
    np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=1e-4)
    assert (np.diag(turned) > 0.5).all()


def test_kernels_keep_their_length_and_move_by_their_own_rate() -> None:
    variable = keras.Variable(kernel(3, 3, 4, 16))
    optimizer = MuonSGD(learning_rate=0.5, kernel_ratio=0.1, kernel_momentum=0.0)
    optimizer.build([variable])
    gradient = kernel(3, 3, 4, 16, seed=1)
    before = variable.numpy() * 4 / np.linalg.norm(variable.numpy())
    optimizer.apply([tf.constant(gradient)])
    expected = before - 0.05 * orthogonal(tf.constant(gradient), 3).numpy()
    np.testing.assert_allclose(variable.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_all_else_is_sgd(momentum: float) -> None:
    made = []
    for kind in (MuonSGD, keras.optimizers.SGD):
        variables = [keras.Variable(kernel(5, 3)), keras.Variable(kernel(3))]
        optimizer = kind(learning_rate=0.1, momentum=momentum, nesterov=True, weight_decay=0.1)
        optimizer.build(variables)
        for step in range(3):
            optimizer.apply([tf.constant(kernel(*one.shape, seed=step)) for one in variables])
        made.append([one.numpy() for one in variables])
    for ours, theirs in zip(*made, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_it_learns_and_is_made_again_from_its_configuration() -> None:
    keras.utils.set_random_seed(0)
    images = kernel(256, 8, 8, 2)
    labels = (images[:, :, :4].mean((1, 2, 3)) > images[:, :, 4:].mean((1, 2, 3))).astype(np.int32)
    network = keras.Sequential(
        [
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    optimizer = MuonSGD.from_config(MuonSGD(0.05, kernel_ratio=1.0, iterations=4).get_config())
    assert (optimizer.kernel_ratio, optimizer.rounds) == (1.0, 4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(optimizer, loss, metrics=["accuracy"])
    network.fit(images, labels, batch_size=32, epochs=8, verbose=0)
    assert network.evaluate(images, labels, verbose=0)[1] > 0.9
