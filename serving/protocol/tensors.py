"""TensorProto to NumPy and back, for the server and the client.

Requests may use `tensor_content` or the typed fields; answers always use the typed fields (`float_val` and
so on), because that is what TF Serving's clients read.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from serving.protocol.dtypes import BOOL, BY_NUMBER, BY_NUMPY, STRING, DType
from serving.protocol.errors import Code, ServingError, invalid

# A TensorProto may give one value for any shape; this bounds what such a message can blow up to.
MAX_FILLED_ELEMENTS = 2**24
MAX_ELEMENTS = 2**59  # of 16 bytes at most, and no array has more than 2^63 bytes
MAX_RANK = 32  # every NumPy's; TensorFlow's own is 254


def dtype_of(array: np.ndarray) -> DType:
    """TensorFlow's type of an array; an object or bytes array holds strings.

    Raises:
        ServingError: UNIMPLEMENTED for a type that TensorFlow does not have.
    """
    if array.dtype.kind in "OSU":
        return STRING
    try:
        return BY_NUMPY[array.dtype]
    except KeyError:
        raise ServingError(
            Code.UNIMPLEMENTED, f"no tensor can be made of values of type {array.dtype}"
        ) from None


def to_array(proto: Any, alias: str) -> np.ndarray:
    """The values of a message.

    Args:
        proto: any form that TensorFlow accepts: `tensor_content`, or a typed field with as many values as
            elements, or with fewer, of which the last one fills the rest.
        alias: the tensor's name, for messages.

    Returns:
        An array of the message's shape; strings as an object array of bytes.

    Raises:
        ServingError: INVALID_ARGUMENT where the message contradicts itself, UNIMPLEMENTED for other types.
    """
    dtype = BY_NUMBER.get(proto.dtype)
    if dtype is None:
        raise ServingError(Code.UNIMPLEMENTED, f'tensor "{alias}" has an unsupported type: {proto.dtype}')
    if proto.tensor_shape.unknown_rank:
        raise invalid(f'tensor "{alias}" has no shape')
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    count = math.prod(shape)
    # NumPy counts the elements of an empty array too, with zeros left out.
    if (
        any(size < 0 for size in shape)
        or len(shape) > MAX_RANK
        or math.prod(filter(None, shape)) > MAX_ELEMENTS
    ):
        raise invalid(f'tensor "{alias}" has an invalid shape: {list(shape)[:16]}')
    if proto.tensor_content:
        return _from_content(proto.tensor_content, dtype, shape, count, alias)
    values = getattr(proto, dtype.field)
    given = len(values) // (2 if dtype.is_complex else 1)
    if given > count or given < count > MAX_FILLED_ELEMENTS or (dtype == STRING and given < count):
        raise invalid(f'tensor "{alias}" has {given} values for {count} elements')
    return _filled(_from_values(values, dtype, alias), dtype, count).reshape(shape)


def _from_content(
    content: bytes, dtype: DType, shape: tuple[int, ...], count: int, alias: str
) -> np.ndarray:
    if dtype == STRING:
        raise invalid(f'tensor "{alias}": strings are read from string_val, not from tensor_content')
    if len(content) != count * dtype.numpy.itemsize:
        raise invalid(f'tensor "{alias}" has {len(content)} bytes for {count} elements of {dtype.name}')
    array = np.frombuffer(content, dtype.numpy)
    if dtype == BOOL and array.view(np.uint8).max(initial=0) > 1:
        raise invalid(f'tensor "{alias}" has a bool that is neither 0 nor 1')
    return array.reshape(shape)


def _from_values(values: Any, dtype: DType, alias: str) -> np.ndarray:
    kind = dtype.numpy
    if dtype == STRING:
        array = np.empty(len(values), object)
        array[:] = values
        return array
    if dtype.field == "half_val":
        wide = np.array(values, np.int64)
        if wide.size and (wide.min() < 0 or wide.max() > 0xFFFF):
            raise invalid(f'tensor "{alias}" has a value out of the range of {dtype.name}')
        return wide.astype(np.uint16).view(kind)
    if dtype.is_complex:
        parts = np.array(values[: len(values) // 2 * 2], kind.type(0).real.dtype)
        return parts.view(kind)
    try:
        return np.array(values, kind)
    except OverflowError:
        raise invalid(f'tensor "{alias}" has a value out of the range of {dtype.name}') from None


def _filled(array: np.ndarray, dtype: DType, count: int) -> np.ndarray:
    """As TensorFlow reads too few values: the last one is repeated, none at all means zeros."""
    if len(array) == count:
        return array
    filled = np.zeros(count, dtype.numpy)
    filled[: len(array)] = array
    if len(array):
        filled[len(array) :] = array[-1]
    return filled


def to_proto(array: np.ndarray, proto: Any, *, packed: bool = False) -> None:
    """Write an array into an empty message.

    Args:
        array: numbers of a type that TensorFlow has, or bytes.
        proto: a TensorProto.
        packed: as `tensor_content`, which is faster, and which TF Serving reads but does not write; strings
            have only their typed field.

    Raises:
        ServingError: UNIMPLEMENTED for a type that TensorFlow does not have.
    """
    dtype = dtype_of(array)
    proto.dtype = dtype.number
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if packed and dtype is not STRING:
        proto.tensor_content = np.ascontiguousarray(array).tobytes()
        return
    flat = array.ravel()
    field = getattr(proto, dtype.field)
    if dtype.field == "half_val":
        field.extend(flat.view(np.uint16).tolist())
    elif dtype.is_complex:
        field.extend(flat.view(flat.real.dtype).tolist())
    else:
        field.extend(flat.tolist())
