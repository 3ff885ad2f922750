"""The conditions that TFX compiles into a pipeline: a small part of the Common Expression Language."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

Json = Any

_STRINGS = re.compile(r"('[^']*')")
_WORDS = (
    (r"&&", " and "),
    (r"\|\|", " or "),
    (r"!(?!=)", " not "),
    (r"\btrue\b", "True"),
    (r"\bfalse\b", "False"),
)
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class ConditionError(ValueError):
    """The backend would not evaluate the condition."""


def holds(condition: str, executor_input: Json) -> bool:
    """Evaluate a task's condition.

    Args:
        condition: comparisons of `inputs.…` paths with constants, joined by &&, || and !.
        executor_input: the message that the paths lead into.

    Raises:
        ConditionError: for anything else, a path that leads nowhere, or a result that is no bool.
    """
    pieces = _STRINGS.split(condition)
    for index in range(0, len(pieces), 2):
        for pattern, word in _WORDS:
            pieces[index] = re.sub(pattern, word, pieces[index])
    try:
        result = _value(ast.parse("".join(pieces).strip(), mode="eval").body, executor_input)
    except (SyntaxError, KeyError, IndexError, TypeError) as error:
        raise ConditionError(f"condition {condition!r}: {type(error).__name__} {error}") from None
    if not isinstance(result, bool):
        raise ConditionError(f"condition {condition!r}: gives {result!r}, not a bool")
    return result


def _value(node: ast.expr, message: Json) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return message[node.id]
        case ast.Attribute():
            return _value(node.value, message)[node.attr]
        case ast.Subscript():
            return _value(node.value, message)[_value(node.slice, message)]
        case ast.UnaryOp(op=ast.Not()):
            return not _value(node.operand, message)
        case ast.BoolOp():
            # CEL's && and || want bools; both sides are looked at here, which only shows more errors.
            sides = [_value(side, message) for side in node.values]
            return all(sides) if isinstance(node.op, ast.And) else any(sides)
        case ast.BinOp(op=ast.Add()):
            return _value(node.left, message) + _value(node.right, message)
        case ast.Compare(ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return _COMPARE[type(op)](_value(node.left, message), _value(right, message))
    raise TypeError(f"cannot evaluate {ast.unparse(node)}")
