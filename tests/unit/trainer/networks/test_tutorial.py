"""The tutorial's network to the last detail."""

from __future__ import annotations

import keras

from trainer.features import DEFAULT_IMAGE_SHAPE
from trainer.model import build_network
from trainer.recipes import resolve


def test_the_tutorials_network_layer_by_layer() -> None:
    network = build_network(resolve("tutorial", precision="float32"), DEFAULT_IMAGE_SHAPE, 10)
    layers = network.layers
    described = [
        (type(layer).__name__, layer.count_params(), tuple(layer.output.shape[1:])) for layer in layers
    ]

    assert described == [
        ("InputLayer", 0, (28, 28, 1)),
        ("Conv2D", 832, (28, 28, 32)),
        ("MaxPooling2D", 0, (14, 14, 32)),
        ("Conv2D", 51_264, (14, 14, 64)),
        ("MaxPooling2D", 0, (7, 7, 64)),
        ("Flatten", 0, (3136,)),
        ("Dense", 3_212_288, (1024,)),
        ("Dropout", 0, (1024,)),
        ("Dense", 10_250, (10,)),
    ]
    assert network.count_params() == 3_274_634
    for convolution in (layers[1], layers[3]):
        assert (convolution.kernel_size, convolution.strides) == ((5, 5), (1, 1))
        assert (convolution.padding, convolution.activation) == ("same", keras.activations.relu)
    for pool in (layers[2], layers[4]):
        assert (pool.pool_size, pool.strides, pool.padding) == ((2, 2), (2, 2), "valid")
    assert layers[6].activation is keras.activations.relu
    assert layers[7].rate == 0.4
    assert layers[8].activation is keras.activations.linear
