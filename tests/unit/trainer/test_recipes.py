"""Recipes: what is in them, and what is refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from trainer.features import ImageShape
from trainer.recipes import RECIPES, resolve


def test_tutorial_is_the_tutorial() -> None:
    params = resolve("tutorial")

    assert params.network == "tutorial"
    assert (params.optimizer, params.learning_rate, params.schedule) == ("sgd", 0.001, "constant")
    assert (params.momentum, params.weight_decay, params.label_smoothing, params.shift) == (0, 0, 0, 0)
    assert (params.batch_size, params.train_steps, params.dropout) == (100, 20_000, 0.4)
    assert params.steps(examples=55_000) == 20_000


@pytest.mark.parametrize("name", RECIPES)
def test_params_cannot_change(name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve(name).seed = 3  # type: ignore[misc]


def test_steps_of_fractional_epochs() -> None:
    params = resolve("fast", epochs=1.5, batch_size=100)

    assert params.steps(1000) == 15
    assert params.steps(10) == 1


@pytest.mark.parametrize(("optimizer", "growth"), [("sgd", 4), ("adamw", 2)])
def test_replicas_take_larger_steps_in_both_phases(optimizer: str, growth: int) -> None:
    params = resolve("retrain", optimizer=optimizer, fine_tune=2)
    many = params.scaled(4)
    assert many.batch_size == many.fine_tuning.batch_size == 4 * params.batch_size
    assert many.learning_rate == growth * params.learning_rate
    assert many.fine_tuning.learning_rate == growth * params.fine_tuning.learning_rate


def test_steps_and_epochs_replace_each_other() -> None:
    assert resolve("fast", train_steps=7).epochs is None
    assert resolve("tutorial", epochs=2).train_steps is None


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("fsat", {}, "unknown recipe 'fsat': did you mean 'fast'?"),
        ("x", {}, "unknown recipe 'x'; there are tutorial, fast"),
        ("fast", {"batchsize": 3}, "recipe 'fast' has no field 'batchsize': did you mean 'batch_size'?"),
        ("fast", {"batch_size": 0}, "batch_size: Input should be greater than 0, got 0"),
        ("fast", {"batch_size": 1.5}, "batch_size: Input should be a valid integer"),
        ("fast", {"learning_rate": float("nan")}, "learning_rate: Input should be a finite number"),
        ("fast", {"dropout": 1.0}, "dropout: Input should be less than 1"),
        ("fast", {"precision": "float64"}, "precision: Input should be 'auto', 'float32'"),
        ("fast", {"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ("fast", {"train_steps": 1, "epochs": 1}, "exactly one of epochs and train_steps must be set"),
        ("fast", {"weight_average_grows": True}, "weight_average_grows needs weight_average"),
        ("fast", {"shift": 0, "shift_fill": "reflect"}, "shift_fill=reflect needs shift"),
        ("fast", {"rotation": 5.0, "shift_fill": "reflect"}, "no rotation, scale, shear or elastic"),
        ("fast", {"network": "none"}, "network: this is no network; there are tutorial"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(name: str, overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="recipe") as caught:
        resolve(name, **overrides)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipes_can_be_read_without_tensorflow() -> None:
    code = "import sys, trainer.recipes; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("recipe", "shape", "message"),
    [
        (
            "cifar-tutorial",
            (20, 24),
            "images of 20 x 24 pixels are too small for trainer.crop=24: change that setting, or take",
        ),
        ("cifar-tutorial", (64, 64), "too large for trainer.crop=24, which would show less than half"),
        ("cifar", (96, 96), "too large for the network 'cifar', which takes 64 x 64 or smaller: take"),
        ("residual", (15, 32), "too small for the network 'residual', which takes 16 x 16 or larger"),
    ],
)
def test_images_that_a_recipe_cannot_take_are_one_clear_line(
    recipe: str, shape: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match="images of") as caught:
        resolve(recipe).check_image_size(ImageShape(*shape))

    assert message in str(caught.value)
    assert recipe not in str(caught.value).partition("take recipe")[2].split()
    assert str(caught.value).endswith("or set data.size")


@pytest.mark.parametrize(
    ("overrides", "setting"),
    [
        ({"shift": 16, "shift_fill": "reflect"}, "trainer.shift=16 with trainer.shift_fill=reflect"),
        ({"answer_shift": 16}, "trainer.answer_shift=16"),
    ],
)
def test_a_shift_beyond_what_can_be_mirrored_is_refused(overrides: dict[str, Any], setting: str) -> None:
    wide = resolve("cifar", **overrides)
    with pytest.raises(
        ValueError, match=f"16 x 16 pixels are too small for {setting}: change that setting, or take"
    ):
        wide.check_image_size(ImageShape(16, 16))
    wide.check_image_size(ImageShape(17, 17))
