"""JSON to NumPy and back, by the rules of TF Serving's REST API.

Reading is strict: a number is no string, 3.0 is no integer, lists must be even. The common case is checked
column by column at C speed; only when something is wrong are the elements walked one by one, for TF
Serving's words.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import orjson

from serving.protocol.dtypes import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT8,
    INT16,
    INT32,
    INT64,
    STRING,
    UINT8,
    UINT32,
    UINT64,
    DType,
)
from serving.protocol.errors import Code, ServingError, invalid
from serving.protocol.signatures import Tensor
from serving.protocol.tensors import MAX_RANK

BASE64 = "b64"
WHITE_SPACE = b" \t\n\v\f\r"  # of C's isspace
BYTES_SUFFIX = "_bytes"  # outputs with such a name hold bytes, not text
MAX_QUOTED = 256  # of the client's own JSON in a message

_INTEGERS = {INT8, INT16, INT32, INT64, UINT8, UINT32, UINT64}
_FLOATS = {FLOAT32, FLOAT64}
# rapidjson's words for what Python's parser says.
_PARSE_ERRORS = {
    "Expecting value": "Invalid value.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Invalid control character at": "Invalid encoding in string.",
}


class Document(dict[str, Any]):
    """A request's JSON object, and what it was read from."""

    body = b""


def parse(body: bytes) -> Document:
    """A request's JSON object; NaN and Infinity are taken, and so is anything after the object.

    Raises:
        ServingError: INVALID_ARGUMENT, in TF Serving's words.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _parse_leniently(body)
    if not isinstance(document, dict):
        raise format_error(document, "Is not object")
    parsed = Document(document)
    parsed.body = body
    return parsed


def refuse_too_big(document: Mapping[str, Any]) -> None:
    """For a document that has an infinite number: refuse it where that was written as a finite one.

    Parsers of Python read 1e400 as Infinity. To look for it in each request would cost more than to parse
    it; here it is parsed once more, for the few that have something infinite.

    Raises:
        ServingError: INVALID_ARGUMENT, in TF Serving's words.
    """
    if isinstance(document, Document):
        _parse_leniently(document.body)


def _parse_leniently(body: bytes) -> Any:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _parse_error("Invalid encoding in string.", error.start) from None
    start = len(text) - len(text.lstrip(" \t\r\n"))
    if start == len(text):
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = json.JSONDecoder(parse_float=_finite, parse_int=_small).raw_decode(text, start)[0]
        if "\\ud" in text.lower():
            # Halves of surrogate pairs, which are no text, must not get any further.
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except UnicodeEncodeError:
        raise _parse_error("The surrogate pair in string is invalid.", start) from None
    except json.JSONDecodeError as error:
        reason = _PARSE_ERRORS.get(error.msg)
        if reason is None and "delimiter" in error.msg:
            reason = "Missing a comma or ] after an array element."
        raise _parse_error(reason or error.msg, error.pos) from None
    except _TooBigError as error:
        raise _parse_error("Number too big to be stored in double.", text.find(str(error))) from None
    except (RecursionError, ValueError) as error:
        raise _parse_error(f"{type(error).__name__}: {error}", 0) from None


class _TooBigError(Exception):
    """A number that no double can hold, as it was written."""


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _TooBigError(text)
    return value


def _small(text: str) -> int | float:
    """An integer; a double where it needs more than 64 bits, as rapidjson and orjson read it."""
    if len(text) > 20:
        return _finite(text)
    value = int(text)
    return value if -(2**63) <= value < 2**64 else float(value)


def _parse_error(reason: str, offset: int) -> ServingError:
    return invalid(f"JSON Parse error: {reason} at offset: {offset}")


def signature_name(document: Mapping[str, Any]) -> str:
    """The signature that a request asks for; empty for the default one."""
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise format_error(
            document, "not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


def read_inputs(
    document: Mapping[str, Any], expected: Mapping[str, Tensor]
) -> tuple[dict[str, np.ndarray], bool]:
    """The tensors of a Predict request.

    Args:
        document: the request.
        expected: the signature's inputs.

    Returns:
        The values by alias, and whether they came row by row ("instances").

    Raises:
        ServingError: INVALID_ARGUMENT, in TF Serving's words.
    """
    if not expected:
        name = document.get("signature_name") or "DEFAULT"
        raise invalid(f"Failed to get input map for signature: {name}")
    values, by_row = _read(document, expected)
    if any(value.dtype.kind == "f" and np.isinf(value).any() for value in values.values()):
        refuse_too_big(document)
    return values, by_row


def _read(
    document: Mapping[str, Any], expected: Mapping[str, Tensor]
) -> tuple[dict[str, np.ndarray], bool]:
    if "instances" in document and "inputs" in document:
        raise format_error(
            document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise format_error(document, "Expecting 'instances' to be an list/array")
        if not instances:
            raise format_error(document, "No values in 'instances' array")
        return _rows(instances, expected), True
    if "inputs" in document:
        return _columns(document["inputs"], expected), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _rows(instances: list[Any], expected: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    named = _is_named(instances[0])
    if not isinstance(instances[0], dict) and len(expected) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required"
            " as per tensorinfo_map"
        )
    columns: dict[str, list[Any]]
    if named:
        columns = {alias: [] for alias in expected}
        for index, item in enumerate(instances):
            if not _is_named(item):
                raise invalid(f"Expecting object but got list at item {index} of input list")
            _check_keys(index, item, expected)
            for alias, value in item.items():
                columns[alias].append(value)
    else:
        for index, item in enumerate(instances):
            if _is_named(item):
                raise invalid(f"Expecting value/list but got object at item {index} of input list")
        columns = {next(iter(expected)): instances}
    values = {}
    for alias, column in columns.items():
        try:
            values[alias] = _dense(column, expected[alias].dtype)
        except ServingError:
            _explain(column, alias if named else None, expected[alias].dtype)
            raise
    return values


def _check_keys(index: int, item: dict[str, Any], expected: Mapping[str, Tensor]) -> None:
    for alias in item:
        if alias not in expected:
            raise invalid(
                f"Failed to process element: {index} key: {alias} of 'instances' list. Error: "
                f"INVALID_ARGUMENT: JSON object: does not have named input: {alias}"
            )
    if item.keys() != expected.keys():
        raise invalid(
            f"Failed to process element: {index} of 'instances' list. JSON object: {_quoted(item)}"
            f" keys must be equal to: {','.join(sorted(expected))}"
        )


def _explain(column: list[Any], alias: str | None, dtype: DType) -> None:
    """Find the instance that does not fit, and say so as TF Serving does."""
    key = "" if alias is None else f" key: {alias}"
    first: np.ndarray | None = None
    for index, item in enumerate(column):
        try:
            value = _dense(item, dtype)
            if first is None:
                first = value
            elif first.size != value.size:
                raise invalid(f"Expecting tensor size: {first.size} but got: {value.size}")
            elif first.shape != value.shape:
                raise invalid(f"Expecting shape {_shape(first)} but got: {_shape(value)}")
        except ServingError as error:
            raise invalid(
                f"Failed to process element: {index}{key} of 'instances' list. Error: {error}"
            ) from None


def _columns(given: Any, expected: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    if not _is_named(given):
        if len(expected) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required"
                " as per tensorinfo_map"
            )
        alias = next(iter(expected))
        return {alias: _dense(given, expected[alias].dtype)}
    values = {}
    for alias, tensor in expected.items():
        if alias not in given:
            raise invalid(f"Missing named input: {alias} in 'inputs' object.")
        values[alias] = _dense(given[alias], tensor.dtype)
    return values


def _dense(value: Any, dtype: DType) -> np.ndarray:
    """Nested lists to an array.

    Raises:
        ServingError: INVALID_ARGUMENT for uneven lists and values of another type, UNIMPLEMENTED for a type
            that JSON cannot say.
    """
    shape: list[int] = []
    level = [value]
    while level and type(level[0]) is list:
        size = len(level[0])
        for item in level:
            if type(item) is not list:
                raise invalid(
                    f"JSON Value: {_quoted(item)} found at incorrect level: {len(shape) + 1}"
                    f" in the JSON DOM. Expected at level: {_depth(level[0]) + len(shape)}"
                )
            if len(item) != size:
                raise invalid(
                    f"Encountered list at unexpected size: {len(item)} at level: {len(shape)}"
                    f" expected size: {size}"
                )
        shape.append(size)
        if len(shape) > MAX_RANK:
            raise invalid(f"Encountered list at unexpected level: {len(shape)} expected < {MAX_RANK}")
        level = list(chain.from_iterable(level))
    return _leaves(level, dtype, len(shape)).reshape(shape)


def _leaves(values: list[Any], dtype: DType, depth: int) -> np.ndarray:
    kinds = set(map(type, values))
    if list in kinds:
        raise invalid(f"Encountered list at unexpected level: {depth} expected < {depth}")
    if dtype == STRING:
        array = np.empty(len(values), object)
        array[:] = [_string(value) for value in values]
        return array
    if dtype in _INTEGERS:
        allowed: set[type] = {int}
    elif dtype in _FLOATS:
        allowed = {int, float}
    elif dtype == BOOL:
        allowed = {bool}
    else:
        raise ServingError(
            Code.UNIMPLEMENTED, f"Conversion of JSON Value: {_quoted(values[:1])} to type: {dtype.name}"
        )
    if not kinds <= allowed:
        raise _type_error(next(value for value in values if type(value) not in allowed), dtype)
    try:
        with np.errstate(over="ignore"):  # what only a double can hold is Infinity, as to a C cast
            return np.array(values, dtype.numpy)
    except OverflowError:
        info = np.iinfo(dtype.numpy) if dtype in _INTEGERS else None
        bad = [value for value in values if info is None or not info.min <= value <= info.max]
        raise _type_error(bad[0] if bad else values[0], dtype) from None


def _string(value: Any) -> bytes:
    if type(value) is str:
        return value.encode()
    if not is_base64(value):
        if isinstance(value, dict):
            raise invalid(f"JSON Value: {_quoted(value)} not formatted correctly for base64 data")
        raise _type_error(value, STRING)
    return decode_base64(value)


def decode_base64(value: Mapping[str, str]) -> bytes:
    """The bytes of a {"b64": …} object.

    By the rules of absl::Base64Unescape: white space may stand anywhere (`base64` writes lines), the
    padding may be left out but not be wrong, may be dots, and the bits that it covers are ignored.

    Raises:
        ServingError: INVALID_ARGUMENT when it is no base64.
    """
    try:
        digits = value[BASE64].encode("ascii").translate(None, WHITE_SPACE)
        bare = digits.rstrip(b"=.")
        padding = -len(bare) % 4
        if len(digits) - len(bare) not in (0, padding):
            raise invalid("Unable to base64 decode")
        return base64.b64decode(bare + b"=" * padding, validate=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are
        raise invalid("Unable to base64 decode") from None


def is_base64(value: Any) -> bool:
    """Whether it is bytes: an object with the one key b64."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(BASE64), str)


def _is_named(value: Any) -> bool:
    """Whether it is an object of inputs by name."""
    return isinstance(value, dict) and not is_base64(value)


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        depth += 1
        if not value:
            break
        value = value[0]
    return depth


def _shape(array: np.ndarray) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"


def _type_error(value: Any, dtype: DType) -> ServingError:
    names = {
        type(None): "Null",
        dict: "Object",
        list: "Array",
        str: "String",
        int: "Number",
        float: "Number",
    }
    name = str(value) if isinstance(value, bool) else names[type(value)]
    short = {FLOAT32: "float", FLOAT64: "double"}.get(dtype, dtype.name)
    return invalid(f"JSON Value: {_quoted(value)} Type: {name} is not of expected type: {short}")


def format_error(value: Any, reason: str) -> ServingError:
    """A request of the wrong form, with the beginning of its JSON."""
    return invalid(f"JSON Value: {_quoted(value)} {reason}")


def _quoted(value: Any) -> str:
    """The beginning of the client's own JSON."""
    encoder = json.JSONEncoder(ensure_ascii=False)
    text = ""
    try:
        for piece in encoder.iterencode(value):
            text += piece
            if len(text) >= MAX_QUOTED:
                break
    except RecursionError:
        pass
    return text[:MAX_QUOTED]


def predictions(outputs: Mapping[str, np.ndarray], by_row: bool) -> bytes:
    """The body of a Predict answer.

    Args:
        outputs: by alias.
        by_row: whether the request came as "instances".

    Raises:
        ServingError: INVALID_ARGUMENT when rows are asked for and the outputs have different batch sizes.
    """
    if not by_row:
        columns = {alias: _plain(value, alias) for alias, value in outputs.items()}
        return dump({"outputs": columns if len(columns) > 1 else next(iter(columns.values()))})
    size = None
    for alias, value in outputs.items():
        if value.ndim == 0:
            raise invalid(f"Tensor name: {alias} has no shape information ")
        if size is not None and len(value) != size:
            raise invalid(
                f"Tensor name: {alias} has inconsistent batch size: {len(value)} expecting: {size}"
            )
        size = len(value)
    if len(outputs) == 1:
        alias, value = next(iter(outputs.items()))
        return dump({"predictions": _plain(value, alias)})
    aliases = list(outputs)
    rows = zip(*(_plain_rows(outputs[alias], alias) for alias in aliases), strict=True)
    return dump({"predictions": [dict(zip(aliases, row, strict=True)) for row in rows]})


def _plain(value: np.ndarray, alias: str) -> Any:
    """What orjson can write."""
    if value.dtype.kind in "OSU":
        return _texts(value.tolist(), alias.endswith(BYTES_SUFFIX))
    if value.dtype.kind not in "fiub":
        raise invalid(f"Failed to write JSON value for tensor type: {value.dtype.name}")
    return np.ascontiguousarray(value) if value.ndim else value[()]


def _plain_rows(value: np.ndarray, alias: str) -> Any:
    plain = _plain(value, alias)
    return plain.tolist() if isinstance(plain, np.ndarray) and plain.dtype.kind in "iub" else plain


def _texts(value: Any, as_bytes: bool) -> Any:
    if isinstance(value, list):
        return [_texts(item, as_bytes) for item in value]
    content = value if isinstance(value, bytes) else str(value).encode()
    if as_bytes:
        return {BASE64: base64.b64encode(content).decode("ascii")}
    return content.decode("utf-8", "replace")


def dump(document: Any) -> bytes:
    """JSON bytes; arrays as lists, and NaN and infinities as TF Serving writes them."""
    if _all_finite(document):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(document, default=_as_list).encode()


def _all_finite(document: Any) -> bool:
    if isinstance(document, dict):
        return all(map(_all_finite, document.values()))
    if isinstance(document, list):
        return all(map(_all_finite, document))
    if isinstance(document, (np.ndarray, np.floating)):
        return document.dtype.kind != "f" or bool(np.isfinite(document).all())
    return not isinstance(document, float) or np.isfinite(document)


def _as_list(value: Any) -> Any:
    """float32 with the digits that it has, not with those of a double."""
    if isinstance(value, np.floating):
        return float(str(value))
    if isinstance(value, np.generic):
        return value.item()
    if value.dtype.kind == "f" and value.ndim == 1:
        return [float(str(item)) for item in value]
    return list(value)
