"""What the registry says of the networks is so."""

from __future__ import annotations

import pytest
import tensorflow as tf

from trainer import model
from trainer.features import ImageShape
from trainer.networks import NETWORKS
from trainer.recipes import Params, resolve


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_takes_the_smallest_images_that_its_layers_can(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = NETWORKS[name].smallest_image
    params = resolve("tutorial", network=name, precision="float32")

    made = model.build_network(params, ImageShape(least, least), 10)

    assert made(tf.zeros((1, least, least, 1))).shape == (1, 10)
    too_small = ImageShape(least, least - 1)
    with pytest.raises(ValueError, match=f"images of {least} x {least - 1} pixels are too small"):
        model.build_network(params, too_small, 10)
    monkeypatch.setattr(Params, "check_image_size", lambda *_: None)
    with pytest.raises(ValueError, match="output size"):
        model.build_network(params, too_small, 10)
