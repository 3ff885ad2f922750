"""What the registry says of the networks is so."""

from __future__ import annotations

import hashlib
import re

import keras
import numpy as np
import pytest

from trainer import model
from trainer.features import ImageShape
from trainer.networks import NETWORKS
from trainer.recipes import resolve

WITHOUT_BASE = [name for name, known in NETWORKS.items() if not known.needs_base]
# Before the networks followed the shape of the images: parameters, the first logits, and SHA-256 of the
# weights that seed 0 draws, in float32.
MNIST = {
    "tutorial": (3_274_634, (-0.126126, -0.040952, 0.045404), "dd0b8c9436f4e36a"),
    "compact": (240_906, (-0.009717, -0.061608, -0.058091), "479a1bbffb51b954"),
    "deep": (288_490, (0.014287, 0.022552, 0.004265), "2b2826fd3b8c5552"),
}


def network(name: str, shape: ImageShape) -> keras.Model:
    params = resolve("tutorial", network=name, precision="float32")
    return model.build_network(params, shape, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", MNIST)
def test_for_mnist_a_network_is_what_it_always_was(name: str) -> None:
    parameters, logits, weights = MNIST[name]
    keras.utils.set_random_seed(0)
    made = network(name, ImageShape(28, 28, 1))
    images = np.random.default_rng(0).random((3, 28, 28, 1)).astype(np.float32)

    assert made.count_params() == parameters
    drawn = b"".join(value.tobytes() for value in made.get_weights())
    assert hashlib.sha256(drawn).hexdigest().startswith(weights)
    np.testing.assert_allclose(made(images)[0, :3], logits, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", WITHOUT_BASE)
def test_a_network_takes_every_size_that_it_promises(name: str, channels: int) -> None:
    known = NETWORKS[name]
    least, largest = known.smallest_image, known.largest_image or 2 * known.smallest_image
    for shape in (ImageShape(least, least, channels), ImageShape(least, largest, channels)):
        made = network(name, shape)
        assert made(np.zeros((2, *shape), np.float32)).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compact", "deep"])
def test_a_larger_image_has_more_halvings_instead_of_a_larger_last_layer(name: str) -> None:
    sizes = {side: network(name, ImageShape(side, side, 3)).count_params() for side in (8, 28, 32, 64, 128)}
    assert max(sizes.values()) < 3 * sizes[28], sizes


@pytest.mark.parametrize("name", WITHOUT_BASE)
def test_smaller_images_are_refused_with_the_recipes_that_take_them(name: str) -> None:
    least = NETWORKS[name].smallest_image
    with pytest.raises(ValueError, match=f"images of {least} x {least - 1} pixels are too small") as caught:
        network(name, ImageShape(least, least - 1))
    advice = "take recipe .*fast" if least > 8 else "take recipe tutorial|: set data.size"
    assert re.search(advice, str(caught.value))
