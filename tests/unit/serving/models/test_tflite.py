"""TF Lite models: signatures, sizes of batches, types, several requests at a time, broken files."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from flatbuffers import flexbuffers
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from serving.models.config_file import ModelConfig
from serving.models.inference import predict
from serving.models.loader import Loader, Loading, State
from serving.models.runtime import tf
from serving.models.servable import Servable
from serving.models.tflite import TfLiteServable
from serving.protocol.errors import Code, ServingError
from serving.protocol.protos import meta_graph_pb2


def converted(function: Callable[..., dict[str, tf.Tensor]], *specs: tf.TensorSpec) -> bytes:
    """A function as a TF Lite file."""
    concrete = tf.function(function, input_signature=specs).get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module()).convert()


@pytest.fixture(scope="module")
def half_plus_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version with x / 2 + 2 on [?, 1], and a text that comes back."""
    folder = tmp_path_factory.mktemp("tflite") / "7"
    folder.mkdir()
    content = converted(
        lambda x, text: {"y": x / 2 + 2, "text": text},
        tf.TensorSpec([None, 1], tf.float32, "x"),
        tf.TensorSpec([None], tf.string, "text"),
    )
    (folder / "model.tflite").write_bytes(content)
    return folder


def ask(servable: Servable, x: np.ndarray, text: list[bytes]) -> list[np.ndarray]:
    """The answers: numbers, and texts."""
    inputs = {"serving_default_x": x, "serving_default_text": np.array(text, object)}
    outputs = predict(servable, type(servable).run, "", inputs).outputs
    return sorted(outputs.values(), key=lambda output: output.dtype == object)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_batches_of_any_size(half_plus_two: Path) -> None:
    servable = TfLiteServable("m", 7, half_plus_two)
    for values in ((1.0,), (1.0, 2.0, 5.0), (4.0, 6.0)):
        text = [b"\xff" * position for position in range(len(values))]
        y, echoed = ask(servable, column(*values), text)
        np.testing.assert_array_equal(y, column(*values) / 2 + 2)
        assert list(echoed) == text


def test_without_metadata_tensors_keep_their_names(half_plus_two: Path) -> None:
    signature = TfLiteServable("m", 7, half_plus_two).signatures["serving_default"]
    assert set(signature.inputs) == {"serving_default_x", "serving_default_text"}
    assert signature.definition.method_name == "tensorflow/serving/predict"
    assert signature.inputs["serving_default_x"].shape == (1, 1)
    assert signature.definition.inputs["serving_default_text"].dtype == tf.string.as_datatype_enum


def with_signature(content: bytes, key: str, definition: meta_graph_pb2.SignatureDef) -> bytes:
    """The file with a signature in its metadata, as TF Lite's signature_def_util writes it."""
    stored = flexbuffers.Builder()
    with stored.Map():
        stored.String(key, definition.SerializeToString().decode("latin-1"))
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(stored.Finish(), np.uint8)
    metadata = schema.MetadataT()
    metadata.name, metadata.buffer = b"signature_defs_metadata", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), metadata]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def signature(**tensors: str) -> meta_graph_pb2.SignatureDef:
    """From the input x to the output y: the names of their tensors."""
    definition = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    definition.inputs["x"].name, definition.inputs["x"].dtype = tensors["x"], 1
    definition.outputs["y"].name, definition.outputs["y"].dtype = tensors["y"], 1
    return definition


def test_signatures_of_the_metadata_are_its_own(tmp_path: Path) -> None:
    plain = converted(lambda x: {"y": x / 2 + 2}, tf.TensorSpec([None, 1], tf.float32, "x"))
    file = tmp_path / "model.tflite"
    file.write_bytes(plain)
    details = TfLiteServable("m", 1, tmp_path).signatures["serving_default"]
    (y,) = (tensor.name for tensor in details.outputs.values())

    file.write_bytes(with_signature(plain, "halves", signature(x="serving_default_x:0", y=y)))
    servable = TfLiteServable("m", 1, tmp_path)
    assert set(servable.signatures) == {"halves"}
    answer = predict(servable, type(servable).run, "halves", {"x": column(2.0)})
    assert answer.outputs["y"].tolist() == [[3.0]]

    file.write_bytes(with_signature(plain, "halves", signature(x="nowhere:0", y=y)))
    with pytest.raises(ServingError, match="input x of signature halves is of an unknown tensor"):
        TfLiteServable("m", 1, tmp_path)


@pytest.mark.parametrize("interpreters", [1, 3])
def test_requests_at_a_time_get_their_own_answers(half_plus_two: Path, interpreters: int) -> None:
    servable = TfLiteServable("m", 7, half_plus_two, interpreters=interpreters)

    def one(number: int) -> bool:
        x = np.full((number % 5 + 1, 1), number, np.float32)
        y, text = ask(servable, x, [b"%d" % number])
        return bool((y == number / 2 + 2).all()) and y.shape == x.shape and list(text) == [b"%d" % number]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(one, range(400)))


@pytest.mark.parametrize(
    ("x", "code"),
    [
        (np.ones((2, 1), np.float64), Code.INVALID_ARGUMENT),
        (np.ones((0, 1), np.float32), Code.INVALID_ARGUMENT),
    ],
)
def test_a_refused_request_leaves_the_next_one_alone(
    half_plus_two: Path, x: np.ndarray, code: Code
) -> None:
    servable = TfLiteServable("m", 7, half_plus_two)
    with pytest.raises(ServingError) as refused:
        ask(servable, x, [b""])
    assert refused.value.code is code
    assert ask(servable, column(2.0), [b""])[0].tolist() == [[3.0]]


def test_what_the_graph_refuses_is_an_error_of_the_request(tmp_path: Path) -> None:
    weights = tf.ones([4, 3])
    content = converted(lambda x: {"y": x @ weights}, tf.TensorSpec([None, 4], tf.float32, "x"))
    (tmp_path / "model.tflite").write_bytes(content)
    servable = TfLiteServable("m", 1, tmp_path)
    with pytest.raises(ServingError) as refused:
        predict(servable, type(servable).run, "", {"serving_default_x": np.ones((2, 5), np.float32)})
    assert refused.value.code is Code.INTERNAL
    (y,) = predict(
        servable, type(servable).run, "", {"serving_default_x": np.ones((2, 4), np.float32)}
    ).outputs.values()
    np.testing.assert_array_equal(y, np.full((2, 3), 4))


def test_a_broken_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"no model at all")
    with pytest.raises(ServingError, match=r"model\.tflite: "):
        TfLiteServable("m", 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("prefers", [True, False])
def test_the_loader_takes_it_only_when_told(half_plus_two: Path, prefers: bool) -> None:
    config = ModelConfig("m", half_plus_two.parent)
    loader = Loader([config], lambda _servable: None, Loading(prefer_tflite=prefers, max_retries=0))
    loader.start()
    try:
        assert loader.wait_until_ready(60 if prefers else 3) is prefers
        [status] = loader.status("m", None)
        assert status.state is (State.AVAILABLE if prefers else State.END)
        if prefers:
            with loader.use("m") as servable:
                assert isinstance(servable, TfLiteServable)
    finally:
        loader.close()
