"""Examples in JSON, and the answers of Classify and Regress, by the rules of TF Serving's REST API."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.protocol.errors import invalid
from serving.protocol.json_tensors import decode_base64, dump, format_error, is_base64, refuse_too_big
from serving.protocol.protos import classification_pb2, example_pb2, input_pb2, regression_pb2

_KIND_NAMES = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64", None: "UNKNOWN"}


def read(document: Mapping[str, Any]) -> input_pb2.Input:
    """The examples of a Classify or Regress request, and their context.

    Raises:
        ServingError: INVALID_ARGUMENT, in TF Serving's words.
    """
    given = input_pb2.Input()
    target = given.example_list.examples
    if "context" in document:
        _fill(document["context"], given.example_list_with_context.context)
        target = given.example_list_with_context.examples
    if "examples" not in document:
        raise format_error(
            document, "When method is classify, key 'examples' is expected and was not found"
        )
    if not isinstance(document["examples"], list):
        raise format_error(document, "Expecting 'examples' value to be an list/array")
    if not document["examples"]:
        raise format_error(document, "'examples' value is an empty array")
    for value in document["examples"]:
        _fill(value, target.add())
    if any(
        math.isinf(number)
        for example in target
        for feature in example.features.feature.values()
        for number in feature.float_list.value
    ):
        refuse_too_big(document)
    return given


def classifications(result: classification_pb2.ClassificationResult) -> bytes:
    """The body of a Classify answer: a list of [label, score] for each example."""
    return dump(
        {
            "results": [
                [[each.label, np.float32(each.score)] for each in row.classes]
                for row in result.classifications
            ]
        }
    )


def regressions(result: regression_pb2.RegressionResult) -> bytes:
    """The body of a Regress answer: a value for each example."""
    return dump({"results": np.array([each.value for each in result.regressions], np.float32)})


def _fill(value: Any, example: example_pb2.Example) -> None:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {_type_name(value)}")
    for name, content in value.items():
        feature = example.features.feature[name]
        for item in content if isinstance(content, list) else [content]:
            _add(item, name, feature)


def _add(item: Any, name: str, feature: example_pb2.Feature) -> None:
    wanted, value = _feature_value(item, name)
    kind = feature.WhichOneof("kind")
    if kind not in (None, wanted):
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {_KIND_NAMES[kind]}")
    try:
        getattr(feature, wanted).value.append(value)
    except (ValueError, OverflowError):
        raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.") from None


def _feature_value(item: Any, name: str) -> tuple[str, Any]:
    """The kind of list that holds the value, and the value for it."""
    if isinstance(item, (bool, int)):
        return "int64_list", int(item)
    if isinstance(item, float):
        return "float_list", item
    if isinstance(item, str):
        return "bytes_list", item.encode()
    if is_base64(item):
        return "bytes_list", decode_base64(item)
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {_type_name(item)}")


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    names = {type(None): "Null", dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")
