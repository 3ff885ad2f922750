"""Holds JSON against the models of a generated OpenAPI client, and refuses what a server would refuse.

The clients' own deserialisers pass over unknown fields, which is how a misspelt one goes unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

Json = Any

INT64 = (".max_concurrency", ".interval_second")


class SchemaError(ValueError):
    """What does not fit, and where."""


def check(value: Json, kind: str, models: Mapping[str, Any], where: str, partial: bool = False) -> None:
    """Compare a value with its type.

    Args:
        value: JSON.
        kind: its type, as the models write it: `str`, `list[V1Container]`, `dict(str, str)`, `V1Pod`.
        models: the generated classes by name.
        where: path of the value, for the error.
        partial: required fields may be missing, as in a patch.

    Raises:
        SchemaError: for an unknown field, a missing one, or a wrong type.
    """
    if value is None and partial:  # in a patch: takes the field away
        return
    if nested := re.fullmatch(r"list\[(.+)\]|dict\(str, (.+)\)", kind):
        container = list if nested[1] else dict
        _expect(isinstance(value, container), f"{where}: no {container.__name__}")
        for key, item in enumerate(value) if container is list else value.items():
            check(item, nested[1] or nested[2], models, f"{where}.{key}", partial)
    elif kind == "datetime":
        _expect(isinstance(value, str) and datetime.fromisoformat(value).tzinfo, f"{where}: no time")
    elif kind == "int":
        _expect(isinstance(value, int) and not isinstance(value, bool), f"{where}: no integer")
    elif kind == "bool":
        _expect(isinstance(value, bool), f"{where}: no boolean")
    elif kind == "str":
        # Of a 64-bit integer the generated models know only that protobuf may write it as a string.
        number = where.endswith(INT64) and isinstance(value, int)
        _expect(isinstance(value, str) or number, f"{where}: no string")
    elif kind != "object":
        _check_model(value, models[kind], models, where, partial)


def _check_model(value: Json, model: Any, models: Mapping[str, Any], where: str, partial: bool) -> None:
    if hasattr(model, "allowable_values"):
        _expect(value in model.allowable_values, f"{where}: none of {', '.join(model.allowable_values)}")
        return
    _expect(isinstance(value, dict), f"{where}: no object")
    names = {written: name for name, written in model.attribute_map.items()}
    for key, item in value.items():
        _expect(key in names, f"{where}.{key}: unknown to {model.__name__}")
        check(item, model.openapi_types[names[key]], models, f"{where}.{key}", partial)
    if not partial:
        try:
            model(**{names[key]: item for key, item in value.items()})
        except ValueError as error:  # a required field is missing, or a value none of those allowed
            raise SchemaError(f"{where}: {error}") from None


def _expect(condition: object, message: str) -> None:
    if not condition:
        raise SchemaError(message)
