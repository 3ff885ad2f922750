"""The program's first lines: its packages are found before others of the same names.

Their names are common words: a file of a user's may have one of them, or an installed package (the SDK of
Kubeflow is called `kubeflow` too). This module's own name is one that nothing else has.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("components", "kubeflow", "pipeline", "serving", "trainer")


def main() -> None:
    """Run the command line, or say in one line which file is in its way."""
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    found = list(hiding(PACKAGES))
    for file in found:
        if not any(file.is_relative_to(folder) for folder in installed):
            print(f"{file} hides a package of this program: give it another name", file=sys.stderr)  # noqa: T201
            sys.exit(2)
    if found:
        # They stay installed for others; here, and in every process that this one starts, ours come first.
        sys.path.insert(0, str(HERE))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    # No process that this one starts looks into its working folder first.
    os.environ["PYTHONSAFEPATH"] = "1"

    from pipeline.cli.main import main as command_line

    command_line()


def hiding(packages: tuple[str, ...]) -> Iterator[Path]:
    """Files and folders that Python would import instead of this program's packages."""
    for name in packages:
        found = PathFinder.find_spec(name)
        places = [*(found.submodule_search_locations or ()), found.origin or ""] if found else []
        if places and Path(places[0]).resolve() not in (HERE / name, HERE / name / "__init__.py"):
            yield Path(places[0]).resolve()


if __name__ == "__main__":
    main()
