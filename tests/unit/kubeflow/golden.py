"""The compiled files of the example configurations, kept for review.

`python -m tests.unit.kubeflow.golden` writes them again; review the difference before you commit it.
"""

from __future__ import annotations

from pathlib import Path

from kubeflow.compile import compile_pipeline
from kubeflow.settings import load

EXAMPLES = Path(__file__).parents[3] / "kubeflow" / "configs"
FOLDER = Path(__file__).parent / "golden"
NAMES = ("example", "one-gpu", "four-gpus")


def compiled(name: str) -> str:
    """The compiled file of one example, without the hash of the code, which every edit changes."""
    return compile_pipeline(*load(EXAMPLES / f"{name}.toml")).to_yaml()


def path(name: str) -> Path:
    """Where the compiled file of one example is kept."""
    return FOLDER / f"{name}.yaml"


def update() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name in NAMES:
        path(name).write_text(compiled(name))


if __name__ == "__main__":
    update()
