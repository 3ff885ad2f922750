"""The SavedModel's signatures: they agree with each other and the trained model, and refuse the rest."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import config_pb2, saved_model_pb2

from tests.training_data import Dataset, example
from trainer import features
from trainer.estimator import RunConfig
from trainer.estimator_model import EstimatorModel
from trainer.model import build_model
from trainer.recipes import resolve
from trainer.signatures import export
from trainer.user_functions import UserFunctions

# A bfloat16 has 8 bits of mantissa, so each product is off by up to 2^-9; logits of a trained network are
# about ten, and their errors average out.
BFLOAT16_TOLERANCE = 0.25


def encoded(image: np.ndarray, form: str = "PNG", mode: str = "L") -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, form)
    return buffer.getvalue()


@dataclass(frozen=True)
class Trained:
    """A model trained in bfloat16, and the SavedModel made of it."""

    model: EstimatorModel
    folder: Path
    saved: Any


@pytest.fixture(scope="module")
def trained(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    params = resolve("fast", precision="mixed_bfloat16", batch_size=50)
    model = build_model(params, features.DEFAULT_IMAGE_SHAPE, 10, steps=120)
    model.fit(scaled(digits), digits.labels, batch_size=50, epochs=15, verbose=0)
    shape = features.DEFAULT_IMAGE_SHAPE
    exact = UserFunctions().in_float32(model, params, shape, 10, RunConfig())
    folder = tmp_path_factory.mktemp("model")
    names = [f"digit {label}" for label in range(10)]
    export(str(folder), exact, features.ImageInput(shape, fit="center"), names, digits.transform)
    return Trained(model, folder, tf.saved_model.load(str(folder)))


@pytest.fixture(scope="module")
def signatures(trained: Trained) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
    return dict(trained.saved.signatures)


def scaled(digits: Dataset) -> dict[str, np.ndarray]:
    return {features.IMAGE: digits.images[..., np.newaxis].astype(np.float32) / 255}


def test_there_are_six_with_these_inputs_and_outputs(signatures: dict[str, Any]) -> None:
    inputs = {name: function.structured_input_signature[1] for name, function in signatures.items()}

    assert inputs == {
        "serving_default": {"image_bytes": tf.TensorSpec([None], tf.string, "image_bytes")},
        "decode": {"image_bytes": tf.TensorSpec([None], tf.string, "image_bytes")},
        "pixels": {"image": tf.TensorSpec([None, 28, 28], tf.uint8, "image")},
        "floats": {"image": tf.TensorSpec([None, 28, 28, 1], tf.float32, "image")},
        "examples": {"examples": tf.TensorSpec([None], tf.string, "examples")},
        "classify": {"inputs": tf.TensorSpec([None], tf.string, "inputs")},
    }
    for name, function in signatures.items():
        outputs = {k: (v.dtype, v.shape.as_list()) for k, v in function.structured_outputs.items()}
        if name == "classify":
            assert outputs == {"classes": (tf.string, [None, 10]), "scores": (tf.float32, [None, 10])}
            continue
        if name == "decode":
            assert outputs == {"image": (tf.uint8, [None, 28, 28]), "names": (tf.string, [None, 10])}
            continue
        assert outputs == {
            "classes": (tf.int64, [None]),
            "label": (tf.string, [None]),
            "probabilities": (tf.float32, [None, 10]),
            "logits": (tf.float32, [None, 10]),
        }


def test_classify_has_the_method_name_that_tf_serving_wants(
    trained: Trained, digits: Dataset, signatures: dict[str, Any]
) -> None:
    saved = saved_model_pb2.SavedModel.FromString((trained.folder / "saved_model.pb").read_bytes())
    defs = saved.meta_graphs[0].signature_def
    methods = {name: defs[name].method_name.rpartition("/")[2] for name in signatures}
    assert methods == {**dict.fromkeys(signatures, "predict"), "classify": "classify"}
    serialized = tf.constant([example(digits.images[0].tobytes(), 3)])
    answer, other = signatures["classify"](serialized), signatures["examples"](serialized)
    assert answer["classes"].numpy().tolist() == [[str(digit).encode() for digit in range(10)]]
    np.testing.assert_array_equal(answer["scores"], other["probabilities"])


def test_they_agree_with_each_other(digits: Dataset, signatures: dict[str, Any]) -> None:
    images, labels = digits.images[:50], digits.labels[:50]
    serialized = [example(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]

    from_files = signatures["serving_default"](tf.constant([encoded(image) for image in images]))
    from_pixels = signatures["pixels"](tf.constant(images))
    from_examples = signatures["examples"](tf.constant(serialized))
    from_floats = signatures["floats"](tf.constant(scaled(digits)[features.IMAGE][:50]))

    for name, value in from_files.items():
        np.testing.assert_array_equal(value, from_pixels[name], err_msg=name)
        np.testing.assert_array_equal(value, from_examples[name], err_msg=name)
        np.testing.assert_array_equal(value, from_floats[name], err_msg=name)
    assert from_files["label"].numpy().tolist() == [b"digit %d" % n for n in from_files["classes"].numpy()]
    assert np.mean(from_files["classes"] == labels) > 0.9


def test_they_agree_with_the_model_trained_in_bfloat16(digits: Dataset, trained: Trained) -> None:
    in_bfloat16 = trained.model.predict(scaled(digits), verbose=0)
    in_float32 = trained.saved.signatures["pixels"](tf.constant(digits.images))

    difference = np.abs(in_bfloat16["logits"] - in_float32["logits"].numpy())
    assert difference.max() < BFLOAT16_TOLERANCE
    assert np.mean(in_bfloat16["classes"] == in_float32["classes"]) > 0.99


def test_the_saved_variables_are_float32(trained: Trained) -> None:
    graph = trained.saved.signatures["pixels"].graph
    assert tf.bfloat16 not in {tensor.dtype for op in graph.get_operations() for tensor in op.outputs}


def test_an_example_needs_no_label(digits: Dataset, signatures: dict[str, Any]) -> None:
    image = digits.raw[0]
    bare = tf.train.Example()
    bare.features.feature[features.IMAGE].bytes_list.value.append(image)

    with_label = signatures["examples"](tf.constant([example(image, 3)]))
    without = signatures["examples"](tf.constant([bare.SerializeToString()]))

    np.testing.assert_array_equal(with_label["logits"], without["logits"])


def test_colour_and_jpeg_files_are_read(digits: Dataset, signatures: dict[str, Any]) -> None:
    image = digits.images[0]
    files = [
        encoded(image),
        encoded(image, mode="RGB"),
        encoded(image, mode="RGBA"),
        encoded(image, "JPEG"),
    ]

    classes = signatures["serving_default"](tf.constant(files))["classes"].numpy()

    assert len(set(classes.tolist())) == 1


@pytest.mark.parametrize("name", ["serving_default", "pixels", "floats", "examples"])
def test_no_input_gives_no_output(signatures: dict[str, Any], name: str) -> None:
    arrays = {"pixels": tf.zeros([0, 28, 28], tf.uint8), "floats": tf.zeros([0, 28, 28, 1])}
    empty = arrays.get(name, tf.constant([], tf.string))

    outputs = signatures[name](empty)

    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "classes": (0,),
        "label": (0,),
        "probabilities": (0, 10),
        "logits": (0, 10),
    }


def test_a_photo_of_any_size_is_centred_as_mnist_was(digits: Dataset, signatures: dict[str, Any]) -> None:
    images = digits.images[:20]
    photos = [
        encoded(255 - np.pad(image.repeat(7, 0).repeat(7, 1), ((9, 70), (30, 4)))) for image in images
    ]
    pixels = signatures["decode"](tf.constant(photos))["image"].numpy()
    # Drawn squares, not MNIST's own strokes: the centre of mass may fall into the next pixel.
    assert np.abs(pixels.astype(int) - images).mean() < 2
    names = signatures["decode"](tf.constant(photos))["names"].numpy()
    assert names[3].tolist() == [b"digit %d" % label for label in range(10)]
    said = signatures["serving_default"](tf.constant(photos))
    of_pixels = signatures["pixels"](tf.constant(pixels))
    np.testing.assert_array_equal(said["logits"], of_pixels["logits"])


def test_files_of_the_models_size_are_not_touched(digits: Dataset, signatures: dict[str, Any]) -> None:
    files = tf.constant([encoded(image) for image in digits.images[:20]])
    np.testing.assert_array_equal(signatures["decode"](files)["image"], digits.images[:20])
    assert signatures["decode"](tf.constant([], tf.string))["image"].shape == (0, 28, 28)


GOOD = encoded(np.zeros((28, 28), np.uint8))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("serving_default", [GOOD, encoded(np.zeros((28, 27), np.uint8))], "blank: no digit to be seen"),
        ("serving_default", [encoded(np.zeros((1, 1), np.uint8))], "blank: no digit to be seen"),
        ("decode", [b"garbage"], None),
        ("serving_default", [b"garbage"], None),
        ("serving_default", [b""], None),
        ("serving_default", [GOOD[:-30]], None),
        ("serving_default", [[GOOD]], None),
        ("serving_default", GOOD, None),
        ("pixels", np.zeros((1, 28, 27), np.uint8), None),
        ("pixels", np.zeros((28, 28), np.uint8), None),
        ("pixels", np.zeros((1, 28, 28, 1), np.uint8), None),
        ("pixels", np.zeros((1, 784), np.uint8), None),
        ("pixels", np.zeros((1, 28, 28), np.float32), None),
        ("floats", np.zeros((1, 28, 28), np.float32), None),
        ("floats", np.full((1, 28, 28, 1), 255, np.float32), "values must be 0 … 1 .bytes divided by 255"),
        ("floats", np.full((1, 28, 28, 1), np.nan, np.float32), "values must be 0 … 1"),
        ("examples", [example(bytes(783), 1)], "28 x 28 pixels, 784 bytes"),
        ("examples", [b"garbage"], None),
        ("examples", [b""], None),
        ("examples", [[example(bytes(784), 1)]], None),
        ("examples", [tf.train.Example().SerializeToString()], None),
    ],
)
def test_a_wrong_input_is_an_error_and_no_more(
    signatures: dict[str, Any], name: str, value: Any, message: str | None
) -> None:
    with pytest.raises((tf.errors.OpError, ValueError, TypeError), match=message):
        signatures[name](tf.constant(value))

    # The process is alive, and so is the model.
    assert signatures["pixels"](tf.zeros([1, 28, 28], tf.uint8))["classes"].shape == (1,)


@pytest.mark.parametrize("shape", [(28, 28), (2, 28, 28, 1), (2, 27, 28), (1,)])
def test_the_graph_checks_shapes_itself(trained: Trained, shape: tuple[int, ...]) -> None:
    """TF Serving feeds a session from C++, where nothing checks a shape for the graph."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(trained.folder))
        signature = loaded.signature_def["pixels"]
        # Session.run checks what it is fed in Python; this callable does not.
        ask = session._make_callable_from_options(
            config_pb2.CallableOptions(
                feed=[signature.inputs["image"].name], fetch=[signature.outputs["classes"].name]
            )
        )
        with pytest.raises(tf.errors.InvalidArgumentError):
            ask(np.zeros(shape, np.uint8))
        assert ask(np.zeros((2, 28, 28), np.uint8))[0].shape == (2,)
