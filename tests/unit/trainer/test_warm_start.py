"""Trainings that begin with what was trained before: names, patterns, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.oracle.cnn_mnist import cnn_model_fn
from tests.unit.trainer import own_model
from trainer.checkpoints import Store
from trainer.estimator import RunConfig
from trainer.estimator_model import EstimatorModel, variable_names
from trainer.features import KEPT_FOLDER, ImageShape
from trainer.model import build_model
from trainer.recipes import resolve
from trainer.user_functions import UserFunctions
from trainer.warm_start import Start, values

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*deprecated.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*will be removed.*:UserWarning"),
]
SHAPE = ImageShape(28, 28)
# The variables in a checkpoint that tf.estimator 2.15 wrote of the tutorial's function.
RECORDED = json.loads((Path(__file__).parents[2] / "oracle" / "estimator_oracle.json").read_text())
SHAPES = {name: shape for name, shape in RECORDED["checkpoint"].items() if name != "global_step"}
RENAMED = {"conv1": "conv2d", "conv2": "conv2d_1", "dense": "dense", "logits": "dense_1"}


@pytest.fixture(scope="module")
def estimators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model_dir as TensorFlow 1's Saver fills it, of two checkpoints; in the last all is 0.5."""
    folder = tmp_path_factory.mktemp("model_dir")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        value = tf.compat.v1.placeholder(tf.float32, [])
        made = [tf.compat.v1.get_variable(name, shape) for name, shape in SHAPES.items()]
        fill = [variable.assign(tf.fill(variable.shape, value)) for variable in made]
        tf.compat.v1.train.create_global_step()
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(save_relative_paths=True)
        for step, number in ((100, 0.25), (200, 0.5)):
            session.run(fill, {value: number})
            saver.save(session, str(folder / "model.ckpt"), step)
    return folder


def start_of(folder: Path, **others: Any) -> Start:
    start = Start.of(others, str(folder))
    assert start is not None
    return start


def tutorial(seed: int = 0, **overrides: Any) -> EstimatorModel:
    params = resolve("tutorial", seed=seed, precision="float32", **overrides)
    return build_model(params, SHAPE, 10, 5)


def tensorflow_1s() -> EstimatorModel:
    params = resolve("tutorial", precision="float32")
    made, _ = UserFunctions(model_fn=cnn_model_fn).build(params, SHAPE, 10, 5, RunConfig())
    return made


def weights(model: EstimatorModel) -> dict[str, np.ndarray]:
    return {name: np.asarray(variable) for name, variable in model.named_variables().items()}


@pytest.mark.slow
def test_an_estimators_checkpoint_is_taken_as_it_is_by_a_function_for_tensorflow_1(
    estimators: Path,
) -> None:
    model = tensorflow_1s()
    assert set(weights(model)) == set(SHAPES)
    start_of(estimators).apply(model)
    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, 0.5, err_msg=name)


@pytest.mark.slow
def test_one_checkpoint_of_several_can_be_chosen(estimators: Path) -> None:
    model = tensorflow_1s()
    start_of(estimators, warm_start_checkpoint="model.ckpt-100").apply(model)
    np.testing.assert_array_equal(weights(model)["dense/bias"], 0.25)


@pytest.mark.slow
def test_names_that_differ_are_given(estimators: Path) -> None:
    model = tutorial()
    renamed = {
        f"{ours}/{part}": f"{theirs}/{part}"
        for ours, theirs in RENAMED.items()
        for part in ("kernel", "bias")
    }
    start_of(estimators, var_name_to_prev_var_name=renamed).apply(model)
    assert set(weights(model)) == set(renamed)
    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, 0.5, err_msg=name)


def test_a_pattern_chooses_variables_and_leaves_the_others_as_they_were(estimators: Path) -> None:
    model = tutorial()
    before = weights(model)
    start_of(estimators, vars_to_warm_start="dense/").apply(model)
    after = weights(model)
    np.testing.assert_array_equal(after["dense/kernel"], 0.5)
    for name in set(after) - {"dense/kernel", "dense/bias"}:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {},
            r"has no conv1/kernel, conv1/bias.*give trainer\.var_name_to_prev_var_name\.conv1/kernel=NAME",
        ),
        (
            {"vars_to_warm_start": "layer"},
            r"vars_to_warm_start=layer matches no variable.*there are conv1/",
        ),
        (
            {"var_name_to_prev_var_name": {"conv3/kernel": "conv2d/kernel"}},
            r"the model has no variable 'conv3/kernel'; there are conv1/kernel",
        ),
        (
            {
                "vars_to_warm_start": "conv1/k",
                "var_name_to_prev_var_name": {"conv1/kernel": "conv2d_1/kernel"},
            },
            r"conv1/kernel is \[5, 5, 1, 32\] here, and conv2d_1/kernel is \[5, 5, 32, 64\] in ",
        ),
        ({"continue": True}, r"trainer\.continue: .*model\.ckpt-200 is no checkpoint of a run"),
    ],
)
def test_what_does_not_fit_is_one_line_and_changes_nothing(
    estimators: Path, given: dict[str, Any], said: str
) -> None:
    model = tutorial()
    before = weights(model)
    start = start_of(estimators, **given)
    with pytest.raises(ValueError, match=said) as caught:
        start.check(model)
    with pytest.raises(ValueError, match=said):
        start.apply(model)
    assert "\n" not in str(caught.value)
    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("content", "checkpoint", "said"),
    [
        ({}, "", "has no checkpoint and no SavedModel: give a run as run:ID"),
        ({}, "checkpoint-7.npz", "there is no checkpoint checkpoint-7.npz in "),
        ({"kept_checkpoints/checkpoint-7.npz": b"PK"}, "", r"checkpoint-7\.npz is no checkpoint of a run"),
        ({"model.ckpt-1.index": b"no"}, "model.ckpt-1", r"model\.ckpt-1 cannot be read"),
    ],
)
def test_a_folder_with_nothing_to_begin_with_is_refused(
    tmp_path: Path, content: dict[str, bytes], checkpoint: str, said: str
) -> None:
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text)
    with pytest.raises(ValueError, match=said):
        values(str(tmp_path), checkpoint)


def test_a_saved_model_of_keras_2_keeps_the_names_of_its_variables(tmp_path: Path) -> None:
    module = tf.Module()
    module.one = tf.Variable([1.0, 2.0], name="dense/bias")  # type: ignore[attr-defined]
    tf.saved_model.save(module, str(tmp_path / "Format-Serving"))
    found = values(str(tmp_path))
    assert found.shapes["dense/bias"] == (2,)
    np.testing.assert_array_equal(found.read("dense/bias"), [1, 2])
    # TFX gives the address with a folder that need not be there.
    assert values(str(tmp_path / "serving_model_dir")).place == found.place


def kept(folder: Path, model: EstimatorModel, *steps: int) -> Path:
    store = Store(str(folder / "1"), "me", keep=2)
    for step in steps:
        arrays = [np.asarray(variable) for variable in model.state()]
        store.save(step, arrays, {"selection": {}}, model.state_names())
    store.finish()
    return folder / "1"


@pytest.mark.slow
def test_a_run_goes_on_with_its_optimizer_and_step(tmp_path: Path) -> None:
    trained = tutorial(momentum=0.9)
    images, labels = np.random.default_rng(0).random((20, *SHAPE), np.float32), np.arange(20) % 10
    trained.fit({"image": images}, labels, batch_size=10, verbose=0)
    folder = kept(tmp_path, trained, 1, 2)

    model = tutorial(seed=1, momentum=0.9)
    start = start_of(folder, **{"continue": True})
    assert start.step == 2
    start.apply(model)
    for name, one, two in zip(model.state_names(), model.state(), trained.state(), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two), err_msg=name)
    assert int(model.optimizer.iterations) == 2
    with pytest.raises(
        ValueError,
        match=r"another model or optimizer: global_step is \[\] here, and sgd\w*/conv1_kernel_momentum is ",
    ):
        start.apply(tutorial())


@pytest.mark.slow
def test_the_last_checkpoints_are_kept_and_no_killed_run_is_looked_for_there(tmp_path: Path) -> None:
    model = tutorial()
    folder = kept(tmp_path, model, 1, 2, 3)
    names = sorted(path.name for path in folder.rglob("*.npz"))
    assert names == ["checkpoint-2.npz", "checkpoint-3.npz"]
    assert Store(str(tmp_path / "2"), "me").latest() is None
    for place in (folder, folder / KEPT_FOLDER, folder / KEPT_FOLDER / "Format-Serving"):
        assert start_of(place, warm_start_checkpoint="checkpoint-2.npz", **{"continue": True}).step == 2


def test_layers_without_a_name_have_the_same_names_in_every_network() -> None:
    first, second = (own_model.build_network(resolve("fast"), SHAPE, 3) for _ in range(2))
    assert first.variables[0].path != second.variables[0].path, "Keras counts through the process"
    assert variable_names(first) == variable_names(second) == ["dense/kernel", "dense/bias"]
    images = keras.Input([4])
    layers = keras.layers
    named = keras.Model(images, layers.Dense(2)(layers.Dense(3, name="mine")(layers.Dense(2)(images))))
    assert variable_names(named)[::2] == ["dense/kernel", "mine/kernel", "dense_1/kernel"]
    inner = keras.Model(images, layers.Dense(4)(images), name="base")
    outer = keras.Model(images, layers.Dense(2)(inner(images)))
    assert variable_names(outer) == ["base/dense/kernel", "base/dense/bias", "dense/kernel", "dense/bias"]
