"""Values keep their type, shape and digits on their way in and out; anything else is refused, never a
crash.
"""

from __future__ import annotations

import io
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from tensorflow.core.framework import tensor_pb2

from serving.protocol import dtypes, image_headers, json_tensors, tensors
from serving.protocol.errors import ServingError
from serving.protocol.signatures import Tensor

NUMBERS = st.sampled_from(
    [
        np.float32,
        np.float64,
        np.int8,
        np.int16,
        np.int32,
        np.int64,
        np.uint8,
        np.uint32,
        np.uint64,
        np.bool_,
    ]
)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
ARRAYS = NUMBERS.flatmap(lambda dtype: arrays.arrays(dtype, SHAPES))
MORE_ARRAYS = st.sampled_from([np.float16, np.uint16, np.complex64, np.complex128]).flatmap(
    lambda dtype: arrays.arrays(dtype, SHAPES)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.slow
@given(ARRAYS | MORE_ARRAYS)
def test_a_message_is_read_as_tensorflow_wrote_it(array: np.ndarray) -> None:
    read = tensors.to_array(tf.make_tensor_proto(array), "x")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.slow
@given(ARRAYS | MORE_ARRAYS)
def test_a_packed_message_is_read_by_tensorflow_as_it_was(array: np.ndarray) -> None:
    proto = tensor_pb2.TensorProto()
    tensors.to_proto(array, proto, packed=True)
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)


@given(NUMBERS, st.lists(st.integers(0, 100), min_size=1, max_size=6), st.integers(0, 4))
def test_equal_values_at_the_end_may_be_left_out(kind: type, values: list[int], repeats: int) -> None:
    array = np.array(values + [values[-1]] * repeats, kind)
    proto = tensor_pb2.TensorProto()
    tensors.to_proto(np.array(values, kind), proto)
    proto.tensor_shape.dim[0].size = len(array)
    np.testing.assert_array_equal(tensors.to_array(proto, "x"), array)


@pytest.mark.slow
@given(arrays.arrays(object, arrays.array_shapes(max_dims=2), elements=st.binary(max_size=8)))
def test_strings_come_back(array: np.ndarray) -> None:
    proto = tensor_pb2.TensorProto()
    tensors.to_proto(array, proto, packed=True)
    assert tensors.to_array(proto, "x").tolist() == array.tolist()


@pytest.mark.slow
@given(ARRAYS | MORE_ARRAYS)
def test_an_answer_is_read_by_tensorflow_as_it_was(array: np.ndarray) -> None:
    proto = tensor_pb2.TensorProto()
    tensors.to_proto(array, proto)
    assert proto.tensor_content == b""
    np.testing.assert_array_equal(tf.make_ndarray(proto), array)


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_strings_both_ways(values: list[bytes]) -> None:
    array = np.empty(len(values), object)
    array[:] = values
    proto = tensor_pb2.TensorProto()
    tensors.to_proto(array, proto)
    assert list(tensors.to_array(proto, "x")) == values


@given(st.binary(max_size=60))
@example(b"")
@example(b"\x08\x01\x12\x0b\x12\t\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
def test_any_message_is_read_or_refused(content: bytes) -> None:
    proto = tensor_pb2.TensorProto()
    try:
        proto.ParseFromString(content)
    except Exception:
        return
    try:
        array = tensors.to_array(proto, "x")
    except ServingError:
        return
    assert array.shape == tuple(dim.size for dim in proto.tensor_shape.dim)


@pytest.mark.parametrize(
    "proto",
    [
        tensor_pb2.TensorProto(dtype=1, tensor_content=b"12"),
        tensor_pb2.TensorProto(dtype=1, float_val=[1, 2]),
        tensor_pb2.TensorProto(dtype=7, tensor_content=b"abc"),
        tensor_pb2.TensorProto(dtype=7),
        tensor_pb2.TensorProto(dtype=4, int_val=[256]),
        tensor_pb2.TensorProto(dtype=10, tensor_content=b"\x02"),
        tensor_pb2.TensorProto(dtype=20),
        tensor_pb2.TensorProto(dtype=99),
        tensor_pb2.TensorProto(dtype=1, tensor_shape={"unknown_rank": True}),
        tensor_pb2.TensorProto(dtype=1, tensor_shape={"dim": [{"size": -1}]}),
        tensor_pb2.TensorProto(dtype=1, tensor_shape={"dim": [{"size": 2**40}]}, float_val=[1]),
        tensor_pb2.TensorProto(dtype=1, tensor_shape={"dim": [{"size": 1}] * 300}, float_val=[1]),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(proto: tensor_pb2.TensorProto) -> None:
    with pytest.raises(ServingError, match='tensor "x"'):
        tensors.to_array(proto, "x")


def expected(dtype: Any, *names: str) -> dict[str, Tensor]:
    return {
        name: Tensor(f"{name}:0", dtypes.of_number(tf.as_dtype(dtype).as_datatype_enum), None)
        for name in names or ("x",)
    }


@pytest.mark.slow
@given(ARRAYS.filter(lambda array: array.ndim > 0 and array.size > 0))
def test_json_keeps_every_value(array: np.ndarray) -> None:
    for by_row in (True, False):
        body = json_tensors.predictions({"y": array}, by_row)
        document = json_tensors.parse(body)
        key = "predictions" if by_row else "outputs"
        request = {"instances" if by_row else "inputs": document[key]}
        values, rows = json_tensors.read_inputs(request, expected(array.dtype))
        assert rows is by_row
        assert values["x"].dtype == array.dtype
        np.testing.assert_array_equal(values["x"], array)


@pytest.mark.slow
@given(JSON, st.sampled_from(["float32", "int64", "uint8", "string", "bool", "complex64"]))
@example(3.4028235677973366e38, "float32")
def test_any_json_is_read_or_refused(value: Any, dtype: str) -> None:
    for document in (value, {"instances": value}, {"inputs": value}, {"instances": [value]}):
        body = json.dumps(document).encode()
        try:
            parsed = json_tensors.parse(body)
            json_tensors.signature_name(parsed)
            values, _ = json_tensors.read_inputs(parsed, expected(dtype))
        except ServingError as error:
            json_tensors.dump({"error": error.message})
        else:
            assert values["x"].dtype == tf.as_dtype(dtype).as_numpy_dtype


@given(st.binary(max_size=40))
@example(b"\xef\xbb\xbf{}")
@example(b'{"a":' * 5000)
@example(b"[" * 100_000)
@example(b'{"a": ' + b"9" * 5000 + b"}")
@example(b'{"a": "\\ud800"}')
def test_any_body_is_parsed_or_refused(body: bytes) -> None:
    try:
        document = json_tensors.parse(body)
    except ServingError as error:
        json_tensors.dump({"error": error.message})
    else:
        assert isinstance(document, dict)


def test_numbers_that_json_lacks() -> None:
    body = json_tensors.predictions(
        {"y": np.array([[0.1, math.nan], [math.inf, -math.inf]], np.float32)}, False
    )
    assert body == b'{"outputs": [[0.1, NaN], [Infinity, -Infinity]]}'


def image_file(width: int, height: int, kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, kind)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
@settings(deadline=None)  # the first picture loads a codec
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_sizes_of_image_files(kind: str, width: int, height: int) -> None:
    assert image_headers.declared_size(image_file(width, height, kind)) == (width, height)


def test_lossless_and_extended_webp() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (123, 45)).save(file, "WEBP", lossless=True)
    assert image_headers.declared_size(file.getvalue()) == (123, 45)
    file = io.BytesIO()
    Image.new("RGBA", (123, 45)).save(file, "WEBP", exif=b"Exif\0\0")
    assert b"VP8X" in file.getvalue()[:20]
    assert image_headers.declared_size(file.getvalue()) == (123, 45)


@given(
    st.binary(max_size=60),
    st.sampled_from([image_headers.PNG, b"\xff\xd8\xff\xc0", b"GIF89a", b"BM", b"RIFF1234WEBPVP8X"]),
)
def test_any_bytes_behind_a_magic_number(content: bytes, magic: bytes) -> None:
    size = image_headers.declared_size(magic + content)
    assert size is None or min(size) >= 0


def test_a_decompression_bomb_is_refused() -> None:
    bomb = bytearray(image_file(1, 1, "PNG"))
    bomb[16:24] = struct.pack(">II", 100_000, 100_000)
    with pytest.raises(ServingError, match="image of 100000 x 100000 pixels: over the limit"):
        image_headers.check_sizes(np.array([b"text", bytes(bomb)], object))
    with pytest.raises(ServingError, match="JPEG XL"):
        image_headers.check_sizes(np.array([b"\xff\x0a123"], object))
    image_headers.check_sizes(np.array([b"", b"text", image_file(100, 100, "JPEG")], object))
