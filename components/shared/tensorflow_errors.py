"""What TensorFlow says, without the names of the graph's nodes around it."""

from __future__ import annotations

import re

_ASSERTION = re.compile(r"assertion failed: \[(.*?)\](?=\s|$)", re.DOTALL)
_WHERE = re.compile(r"Graph execution error:.*?(<stack traces unavailable>|\Z)", re.DOTALL)
_NODE = re.compile(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]")


def reason(text: str) -> str:
    """One line for a person: of an assertion its own words."""
    asserted = _ASSERTION.search(text)
    words = asserted[1] if asserted else _NODE.sub("", _WHERE.sub("", text))
    return " ".join(words.split())
