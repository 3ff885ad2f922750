"""Hashes of the code behind each node, so that TFX's cache sees an edit. Imports none of that code.

TFX hashes a `module_file`, but knows an executor or a dotted path by its name alone.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from pipeline.config import ConfigError, TrainerConfig
from pipeline.nodes import NodeId

# Node id -> the modules that do its work, and packages of which every file counts.
CODE_OF_NODE: Mapping[str, tuple[str, ...]] = {
    NodeId.EXAMPLE_GEN: ("components.image_example_gen",),
    NodeId.SCHEMA: ("components.curated_schema",),
    NodeId.DATA_GATE: ("components.data_gate",),
    NodeId.TRANSFORM: ("trainer.preprocessing",),
    NodeId.TRAINER: ("trainer.train",),
    NodeId.TUNER: ("trainer.tune",),
    NodeId.BASELINE_MODEL: ("components.baseline_model",),
    NodeId.EVALUATOR: ("components.evaluator",),
    # It runs the server in a process of its own.
    NodeId.SERVING_VALIDATOR: ("components.serving_validator", "serving"),
    NodeId.PUSHER: ("components.pusher",),
    NodeId.REPORT_GEN: ("components.report_gen",),
}
_OURS = frozenset(root.partition(".")[0] for roots in CODE_OF_NODE.values() for root in roots)
_FUNCTIONS = ("model_fn", "build_network", "callbacks")  # settings of the trainer that name a function
_DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_INSTALLED = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def code_hashes(settings: TrainerConfig) -> dict[str, str]:
    """SHA-256 by node id over the sources that the node's work imports, directly or not.

    These are the project's files and the user's: what `trainer.model_fn` and its like name, and whatever
    these import that is not installed. Installed packages are left out.

    Raises:
        ConfigError: for a dotted path that leads to no module, or a file that is no Python.
    """
    own = {name: path for name in _FUNCTIONS if (path := getattr(settings, name))}
    modules = {name: path.rpartition(".")[0] for name, path in own.items()}
    # A user's module may be installed.
    graph = _ImportGraph({*_OURS, *(_top(module) for module in modules.values())})
    for name, module in modules.items():
        if graph.find(module) is None:
            raise ConfigError(f"trainer.{name}={own[name]}: there is no module {module!r}; see PYTHONPATH")
    return {
        node: _digest(
            graph.reached_from(
                [*roots, *(modules.values() if node in (NodeId.TRAINER, NodeId.TUNER) else ())]
            )
        )
        for node, roots in CODE_OF_NODE.items()
    }


def house_hash() -> str:
    """SHA-256 over all Python files that have a say in a run, its wiring and settings included.

    Coarser than code_hashes, and quicker: no file is parsed.
    """
    house = Path(__file__).parents[1]
    packages = sorted({*_OURS, _top(__name__)})
    return _digest(
        {str(file.relative_to(house)): file for name in packages for file in (house / name).rglob("*.py")}
    )


def _digest(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        digest.update(f"{name}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Source:
    """What one module's source names: modules that it may import, and files next to it."""

    imports: tuple[str, ...]
    resources: tuple[Path, ...]


class _ImportGraph:
    """Which module imports which, as the sources say; each file is read once."""

    def __init__(self, packages: Iterable[str]) -> None:
        """Begin with nothing read.

        Args:
            packages: those at the top that count even where they are installed.
        """
        self._packages = frozenset(packages)
        self._places: dict[str, Path | None] = {}
        self._sources: dict[str, _Source] = {}

    def find(self, module: str) -> Path | None:
        """The source of a module, or its folder where it is a package; None where it does not count.

        Not by the import system, which would run the packages above the module to find it.
        """
        if module not in self._places:
            parent, _, name = module.rpartition(".")
            self._places[module] = self._in_package(parent, name) if parent else self._at_the_top(name)
        return self._places[module]

    def _in_package(self, package: str, name: str) -> Path | None:
        folder = self.find(package)
        if folder is None:
            return None
        places = folder / name, folder / f"{name}.py"
        return next((place for place in places if place.is_dir() or place.is_file()), None)

    def _at_the_top(self, name: str) -> Path | None:
        found = PathFinder.find_spec(name)
        places = [*(found.submodule_search_locations or ()), found.origin or ""] if found else []
        place = Path(places[0]) if places else None
        if place is None or not (place.is_dir() or place.suffix == ".py"):
            return None
        installed = any(place.resolve().is_relative_to(folder) for folder in _INSTALLED)
        return place if name in self._packages or not installed else None

    def reached_from(self, roots: Iterable[str]) -> dict[str, Path]:
        """The files of some modules, of all modules in some packages, and of what these import.

        A file that is no module (a template, a style) counts with a package that is named as a whole, and
        with a module next to it that has its name as a string.
        """
        todo = [module for root in roots for module in self._whole(root)]
        whole = set(todo)
        seen: set[str] = set()
        files: dict[str, Path] = {}
        while todo:
            module = todo.pop()
            place = self.find(module)
            if module in seen or place is None:
                continue
            seen.add(module)
            if place.is_dir():
                if module in whole:
                    files |= {f"{module}/{file.name}": file for file in _resources(place)}
                place = place / "__init__.py"
            if place.is_file():
                read = self._read(module, place)
                files |= {module: place} | {f"{module}/{file.name}": file for file in read.resources}
                todo += read.imports
        return files

    def _whole(self, root: str) -> Iterator[str]:
        yield root
        place = self.find(root)
        if place is not None and place.is_dir():
            for file in sorted(place.rglob("*.py")):
                parts = file.relative_to(place).with_suffix("").parts
                yield ".".join((root, *parts)).removesuffix(".__init__")

    def _read(self, module: str, file: Path) -> _Source:
        if module not in self._sources:
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            try:
                tree = ast.parse(file.read_bytes(), file)
            except SyntaxError as error:
                raise ConfigError(f"{file}, line {error.lineno}: {error.msg}") from None
            nodes = list(ast.walk(tree))
            texts = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
            names = {name for node in nodes for name in _imported(node, package)}
            # Registries name the modules that they load, and TFX takes functions by their dotted paths.
            names |= {text for text in texts if _DOTTED_NAME.fullmatch(text) and _top(text) in _OURS}
            siblings = {resource.name: resource for resource in _resources(file.parent)}
            self._sources[module] = _Source(
                tuple({above for name in names for above in _with_parents(name)}),
                tuple(siblings[text] for text in texts & siblings.keys()),
            )
        return self._sources[module]


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """The modules that a statement may import: what `from … import` names may be one, or a function."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parts = package.split(".") if node.level else []
        base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _with_parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _resources(folder: Path) -> list[Path]:
    return sorted(
        file for file in folder.iterdir() if file.is_file() and file.suffix not in (".py", ".pyc")
    )
