"""Where a run's parameters go inside a node's settings, and putting them there.

`kubeflow.parameters` finds the places when a pipeline is compiled, `kubeflow.entrypoint` fills them in the
pod, so nothing of the pipeline is imported here.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = Any
Path = tuple[str | int, ...]
FLAG = "--runtime_parameters"  # of kubeflow.entrypoint: the bindings of a node, as JSON
PREFIX = "run_"  # of a node's input for a parameter of the run: nodes have inputs of such names already


@dataclass(frozen=True)
class Binding:
    """Parameters go into one place of a node's settings.

    Attributes:
        task: the node.
        input: its parameter.
        path: keys and indices inside the parameter's JSON; () where the parameter itself is meant.
        template: `{name}` for the value of one parameter, or a text around several.
        optional: the key is left out where the value is the parameter's `unset`.
    """

    task: str
    input: str
    path: Path
    template: str
    optional: bool = False


def as_json(binding: Binding) -> dict[str, Json]:
    """A binding as `fill` reads it; the task is not part of it."""
    entry: dict[str, Json] = {
        "input": binding.input,
        "path": list(binding.path),
        "template": binding.template,
    }
    return entry | ({"optional": True} if binding.optional else {})


def names_in(template: str) -> list[str]:
    """The parameters that a template asks for."""
    return [name for _, name, _, _ in string.Formatter().parse(template) if name]


def decode(value: Json) -> Json:
    """The contents of a JSON text, or the value itself."""
    if isinstance(value, str) and value[:1] in "{[" and value:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def fill(properties: dict[str, Json], bound: list[dict[str, Json]], values: Mapping[str, Json]) -> None:
    """Put the values of a run into a node's properties, in place.

    Args:
        properties: the node's parameters by name.
        bound: bindings of the node as `as_json` gives them.
        values: the run's parameters by name.

    Raises:
        KeyError: where a property or a parameter is missing.
    """
    for binding in bound:
        if not binding["path"]:
            properties[binding["input"]] = _render(binding["template"], values)
            continue
        tree = decode(properties[binding["input"]])
        *way, last = binding["path"]
        target = tree
        for key in way:
            target = target[key] if isinstance(target, list) else target.setdefault(key, {})
        value = _render(binding["template"], values)
        if binding.get("optional") and not value:
            if isinstance(target, dict):
                target.pop(last, None)
        else:
            target[last] = value
        properties[binding["input"]] = json.dumps(tree, sort_keys=True)


def _render(template: str, values: Mapping[str, Json]) -> Json:
    name = template[1:-1]
    # One parameter alone keeps its type.
    return values[name] if name in values else template.format_map(values)
