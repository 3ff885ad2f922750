"""TensorFlow's data types without TensorFlow: their names, their numbers, what NumPy calls them."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from serving.protocol import protos


@dataclass(frozen=True, eq=False)  # each is one object
class DType:
    """A type of tensors.

    Attributes:
        name: as TensorFlow says it: `float32`.
        number: of DataType in types.proto.
        numpy: for its values; of type object for strings, and for types that have no values here.
        field: of TensorProto that holds its values; empty for types that have no values here.
    """

    name: str
    number: int
    numpy: np.dtype
    field: str = ""

    @property
    def is_complex(self) -> bool:
        """Whether a value is two numbers."""
        return self.numpy.kind == "c"


def _dtype(name: str, field: str, numpy: object = None) -> DType:
    other = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF"}
    number = protos.types_pb2.DataType.Value(f"DT_{other.get(name, name.upper())}")
    return DType(name, number, np.dtype(numpy or name), field)  # type: ignore[call-overload]


FLOAT32 = _dtype("float32", "float_val")
FLOAT64 = _dtype("float64", "double_val")
FLOAT16 = _dtype("float16", "half_val")
BFLOAT16 = _dtype("bfloat16", "half_val", ml_dtypes.bfloat16)
INT8 = _dtype("int8", "int_val")
INT16 = _dtype("int16", "int_val")
INT32 = _dtype("int32", "int_val")
INT64 = _dtype("int64", "int64_val")
UINT8 = _dtype("uint8", "int_val")
UINT16 = _dtype("uint16", "int_val")
UINT32 = _dtype("uint32", "uint32_val")
UINT64 = _dtype("uint64", "uint64_val")
BOOL = _dtype("bool", "bool_val")
STRING = _dtype("string", "string_val", object)
COMPLEX64 = _dtype("complex64", "scomplex_val")
COMPLEX128 = _dtype("complex128", "dcomplex_val")

SUPPORTED = (
    *(FLOAT32, FLOAT64, FLOAT16, BFLOAT16, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64),
    *(BOOL, STRING, COMPLEX64, COMPLEX128),
)
BY_NUMBER = {dtype.number: dtype for dtype in SUPPORTED}
BY_NUMPY = {dtype.numpy: dtype for dtype in SUPPORTED if dtype is not STRING}


def of_number(number: int) -> DType:
    """The type with a number of types.proto; one without values where it is not supported."""
    known = BY_NUMBER.get(number)
    if known is not None:
        return known
    name = protos.types_pb2.DataType.Name(number) if number in protos.types_pb2.DataType.values() else ""
    return DType(name.removeprefix("DT_").lower() or str(number), number, np.dtype(object))
