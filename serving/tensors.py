"""TensorProto to NumPy and back, as TF Serving reads and writes it.

Requests may use `tensor_content` or the typed fields; answers always use the typed fields (`float_val` and
so on), because that is what TF Serving's clients read.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.errors import Code, ServingError, invalid

# A TensorProto may give one value for any shape; this bounds what such a message can blow up to.
MAX_FILLED_ELEMENTS = 2**24
MAX_RANK = 32  # every NumPy's; TensorFlow's own is 254

_FIELDS: dict[tf.DType, str] = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    tf.int8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.uint8: "int_val",
    tf.uint16: "int_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.complex64: "scomplex_val",
    tf.complex128: "dcomplex_val",
}
_DTYPES = {dtype.as_datatype_enum: dtype for dtype in _FIELDS}
_BY_NUMPY = {np.dtype(dtype.as_numpy_dtype): dtype for dtype in _FIELDS}


def dtype_of(array: np.ndarray) -> tf.DType:
    """TensorFlow's type of an array; an object or bytes array holds strings."""
    return tf.string if array.dtype.kind in "OSU" else _BY_NUMPY[array.dtype]


def to_array(proto: tensor_pb2.TensorProto, alias: str) -> np.ndarray:
    """The values of a message.

    Args:
        proto: any form that TensorFlow accepts: `tensor_content`, or a typed field with as many values as
            elements, or with fewer, of which the last one fills the rest.
        alias: the input's name, for messages.

    Returns:
        An array of the message's shape; strings as an object array of bytes.

    Raises:
        ServingError: INVALID_ARGUMENT where the message contradicts itself, UNIMPLEMENTED for other types.
    """
    dtype = _DTYPES.get(proto.dtype)
    if dtype is None:
        raise ServingError(Code.UNIMPLEMENTED, f'input "{alias}" has an unsupported type: {proto.dtype}')
    if proto.tensor_shape.unknown_rank:
        raise invalid(f'input "{alias}" has no shape')
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    count = math.prod(shape)
    if any(size < 0 for size in shape) or len(shape) > MAX_RANK:
        raise invalid(f'input "{alias}" has an invalid shape: {list(shape)[:16]}')
    if proto.tensor_content:
        return _from_content(proto.tensor_content, dtype, shape, count, alias)
    values = getattr(proto, _FIELDS[dtype])
    given = len(values) // (2 if dtype.is_complex else 1)
    if given > count or given < count > MAX_FILLED_ELEMENTS or (dtype == tf.string and given < count):
        raise invalid(f'input "{alias}" has {given} values for {count} elements')
    return _filled(_from_values(values, dtype, alias), dtype, count).reshape(shape)


def _from_content(
    content: bytes, dtype: tf.DType, shape: tuple[int, ...], count: int, alias: str
) -> np.ndarray:
    if dtype == tf.string:
        raise invalid(f'input "{alias}": strings are read from string_val, not from tensor_content')
    if len(content) != count * dtype.size:
        raise invalid(f'input "{alias}" has {len(content)} bytes for {count} elements of {dtype.name}')
    array = np.frombuffer(content, dtype.as_numpy_dtype)
    if dtype == tf.bool and array.view(np.uint8).max(initial=0) > 1:
        raise invalid(f'input "{alias}" has a bool that is neither 0 nor 1')
    return array.reshape(shape)


def _from_values(values: Any, dtype: tf.DType, alias: str) -> np.ndarray:
    kind = dtype.as_numpy_dtype
    if dtype == tf.string:
        array = np.empty(len(values), object)
        array[:] = values
        return array
    if _FIELDS[dtype] == "half_val":
        wide = np.array(values, np.int64)
        if wide.size and (wide.min() < 0 or wide.max() > 0xFFFF):
            raise invalid(f'input "{alias}" has a value out of the range of {dtype.name}')
        return wide.astype(np.uint16).view(kind)
    if dtype.is_complex:
        parts = np.array(values[: len(values) // 2 * 2], kind(0).real.dtype)
        return parts.view(kind)
    try:
        return np.array(values, kind)
    except OverflowError:
        raise invalid(f'input "{alias}" has a value out of the range of {dtype.name}') from None


def _filled(array: np.ndarray, dtype: tf.DType, count: int) -> np.ndarray:
    """As TensorFlow reads too few values: the last one is repeated, none at all means zeros."""
    if len(array) == count:
        return array
    filled = np.zeros(count, dtype.as_numpy_dtype)
    filled[: len(array)] = array
    if len(array):
        filled[len(array) :] = array[-1]
    return filled


def to_proto(array: np.ndarray, proto: tensor_pb2.TensorProto) -> None:
    """Write an array into an empty message, in the typed field of its type.

    Raises:
        ServingError: UNIMPLEMENTED for a type without such a field.
    """
    dtype = dtype_of(array)
    proto.dtype = dtype.as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    flat = array.ravel()
    field = getattr(proto, _FIELDS[dtype])
    if _FIELDS[dtype] == "half_val":
        field.extend(flat.view(np.uint16).tolist())
    elif dtype.is_complex:
        field.extend(flat.view(flat.real.dtype).tolist())
    else:
        field.extend(flat.tolist())
