"""What docs/architecture.md promises beyond the contracts between packages in pyproject.toml."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from pipeline.nodes import NodeId

ROOT = Path(__file__).parents[2]
ROOMS = ("components", "kubeflow", "pipeline", "serving", "trainer")
# Libraries that take half a second or more, so that a command imports them when its input has been checked.
SLOW = ("apache_beam", "kfp", "kubernetes", "matplotlib", "pyarrow", "sklearn", "tensorflow", "tfx")


@functools.cache
def sources() -> dict[str, ast.Module]:
    """Every module of the rooms by its dotted name."""
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            file.read_text()
        )
        for file in files
    }


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            below = f"{node.module}.{alias.name}"
            yield below if below in sources() else node.module


def at_the_top(tree: ast.Module) -> Iterator[str]:
    """The modules that are imported with a module, those for type checkers left out."""
    tried = [each for block in tree.body if isinstance(block, ast.Try) for each in block.body]
    for node in [*tree.body, *tried]:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(node)


@functools.cache
def is_slow(module: str) -> bool:
    """Whether a module imports one of the slow libraries, directly or not."""
    if module.partition(".")[0] in SLOW:
        return True
    return module in sources() and any(is_slow(each) for each in at_the_top(sources()[module]))


def test_an_import_stands_at_the_top_unless_it_takes_seconds() -> None:
    late = [
        f"{module}: {each}"
        for module, tree in sources().items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        for each in imported(node)
        if not is_slow(each)
    ]

    assert not late


def test_ids_of_nodes_stand_in_one_file() -> None:
    ids = {node.value for node in NodeId}
    elsewhere = [
        f"{module}: {node.value}"
        for module, tree in sources().items()
        if module != "pipeline.nodes"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and node.value in ids
        and module.partition(".")[0] in ("pipeline", "kubeflow")
    ]

    assert not elsewhere
