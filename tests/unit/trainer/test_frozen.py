"""Features that are computed once, and the layers after them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tests.training_data import Dataset
from trainer import batches, features, frozen, model
from trainer.features import ImageShape
from trainer.fit import Splits
from trainer.networks import retrain
from trainer.networks.retrain import FEATURES
from trainer.recipes import Params, resolve


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    images = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(6, 3, name="conv")(images)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv2")(x)
    path = tmp_path_factory.mktemp("base") / "base.keras"
    keras.Model(images, x, name="small").save(path)
    return str(path)


def params(base: str, **fields: object) -> Params:
    return resolve("retrain", base=base, base_input="unit", precision="float32", **fields)


@pytest.mark.slow
@pytest.mark.parametrize("tuned", [0, 1, 2, 3, 9])
def test_only_the_new_layers_learn_until_some_are_tuned(base: str, tuned: int) -> None:
    network = model.build_network(params(base, fine_tune=tuned), ImageShape(10, 10, 1), 4)

    def trained() -> list[str]:
        return [variable.path for variable in network.trainable_variables]

    new = ["scale/gamma", "scale/beta", "logits/kernel", "logits/bias"]
    assert frozen.is_frozen(network)
    assert trained() == new

    retrain.unfreeze(network, tuned)

    # Batch normalisation, the second layer, keeps what it was trained with.
    first, last = ["conv/kernel", "conv/bias"], ["conv2/kernel", "conv2/bias"]
    assert trained() == [*(first if tuned > 2 else []), *(last if tuned else []), *new]


def test_the_second_phase_has_epochs_and_a_learning_rate_of_its_own(base: str) -> None:
    second = params(base, train_steps=7, fine_tune=1, fine_tune_epochs=3).fine_tuning
    assert (second.train_steps, second.epochs, second.learning_rate) == (None, 3, 1e-5)
    assert second.optimizer == "adamw"
    with pytest.raises(
        ValueError, match=r"'compact' has no layers for trainer.fine_tune: take recipe retr"
    ):
        resolve("fast", fine_tune=1).check_base()


@pytest.mark.slow
@pytest.mark.parametrize("answer_shift", [0, 1])
def test_the_head_on_features_is_the_network_on_images(
    base: str, stripes: Dataset, tmp_path: Path, answer_shift: int
) -> None:
    chosen = params(base, answer_shift=answer_shift)
    split = batches.read_split(stripes.patterns, 1 << 30)
    splits = Splits(split, split, stripes.transform)
    shape = ImageShape(*stripes.images.shape[1:], 1)
    whole = model.build_model(chosen, shape, 7, steps=1)
    network = whole.given_network
    assert network is not None
    network.get_layer("scale").moving_mean.assign(np.linspace(-1, 1, 8))

    computed = frozen.compute(whole, chosen, splits, str(tmp_path))
    head = frozen.head_of(network)

    # Each image and its mirror image to train on; the means of its views to validate with.
    assert (computed.train.size, computed.validation.size) == (2 * split.size, split.size)
    found = [
        (inputs[features.IMAGE], labels)
        for inputs, labels in batches.evaluation_batches(computed.validation, splits.transform, 50)
    ]
    images = [
        (inputs[features.IMAGE], labels)
        for inputs, labels in batches.evaluation_batches(split, splits.transform, 50)
    ]
    for (rows, labels), (pictures, same) in zip(found, images, strict=True):
        np.testing.assert_array_equal(labels, same)
        np.testing.assert_allclose(head(rows), network(pictures), atol=1e-4)
    body = keras.Model(network.get_layer("views").output, network.get_layer(FEATURES).output)
    train = computed.train.computed
    assert train is not None
    pictures = images[0][0]
    np.testing.assert_allclose(train[:50], body(pictures), atol=1e-5)
    np.testing.assert_allclose(train[split.size : split.size + 50], body(pictures[:, :, ::-1]), atol=1e-5)


def test_training_batches_of_features_have_each_once_an_epoch(tmp_path: Path) -> None:
    rows = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.float32, (10, 3))
    rows[:] = np.arange(10)[:, None]
    split = batches.Split((), 10, None, keras.ops.arange(10, dtype="int64"), rows)

    def some(first_step: int) -> list[np.ndarray]:
        made = batches.training_batches(split, None, 5, seed=1, first_step=first_step)  # type: ignore[arg-type]
        return [(inputs[features.IMAGE].numpy(), labels.numpy()) for inputs, labels in made.take(4)]

    found = some(0)
    for inputs, labels in found:
        np.testing.assert_array_equal(inputs, np.repeat(labels[:, None], 3, axis=1))
    epochs = [np.concatenate([found[at][1], found[at + 1][1]]) for at in (0, 2)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert list(epochs[0]) != list(epochs[1])
    np.testing.assert_array_equal(some(2)[0][1], found[2][1])


def test_what_features_that_are_computed_once_cannot_have_is_refused(base: str) -> None:
    with pytest.raises(ValueError, match="computed once, which of all augmentation allows flip alone"):
        params(base, shift=2)
    assert params(base, shift=2, fine_tune=1).shift == 2
