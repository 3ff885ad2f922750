"""The networks by name. A new one is a module of this folder with a `build`, and a line in NETWORKS.

Imports neither TensorFlow nor Keras: recipes read the names and sizes without them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class Network:
    """What is known of a network without building it.

    Attributes:
        module: has `build(images, params)`: the Keras tensor [N, height, width, channels] in [0, 1] to
            features [N, F], the input of the last layer.
        smallest_image: pixels in each direction that it takes at least: its layers make images smaller.
        largest_image: the most that it takes; None: it follows the size.
        needs_base: whether it stands on a network that was trained before.
        trains: whether any of its weights are to be trained; otherwise `build` makes the logits themselves.
    """

    module: str
    smallest_image: int
    largest_image: int | None = None
    needs_base: bool = False
    trains: bool = True

    def takes(self, height: int, width: int) -> bool:
        """Whether images of that size can go through its layers."""
        sides = (height, width)
        return min(sides) >= self.smallest_image and max(sides) <= (self.largest_image or max(sides))

    @property
    def build(self) -> Callable[[Any, Any], Any]:
        """The module's function."""
        return cast(Callable[[Any, Any], Any], importlib.import_module(self.module).build)

    def logits_initializer(self) -> Any:
        """The module's own for the kernel of the last layer; None: the recipe's."""
        make = getattr(importlib.import_module(self.module), "logits_initializer", None)
        return make() if make else None


NETWORKS: Mapping[str, Network] = {
    "tutorial": Network("trainer.networks.tutorial", smallest_image=4),
    "compact": Network("trainer.networks.compact", smallest_image=8),
    "deep": Network("trainer.networks.deep", smallest_image=8),
    "residual": Network("trainer.networks.residual", smallest_image=16),
    "cifar": Network("trainer.networks.cifar", smallest_image=16, largest_image=64),
    "cifar_tutorial": Network("trainer.networks.cifar_tutorial", smallest_image=8, largest_image=64),
    "pretrained": Network("trainer.networks.pretrained", smallest_image=1, needs_base=True, trains=False),
    "retrain": Network("trainer.networks.retrain", smallest_image=1, needs_base=True),
}
