"""What the libraries find when they are imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
from pipeline.runtime import environment
with environment.heavy_imports():
    import keras
unused = {"matplotlib", "sklearn"}
assert not unused & {name.partition(".")[0] for name in sys.modules}
assert not list(Path.home().rglob("fontlist*"))
import matplotlib.figure, sklearn.metrics
"""
SEARCH = """
from pipeline.runtime import environment
with environment.heavy_imports(needed=("sklearn",)):
    from keras_tuner.src.tuners import bayesian
assert bayesian.sklearn
"""


@pytest.mark.slow
def test_imports_bring_neither_charts_nor_scikit_learn_which_can_be_imported_later(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True, env=os.environ | {"HOME": str(tmp_path)})


@pytest.mark.slow
def test_a_search_finds_scikit_learn() -> None:
    subprocess.run([sys.executable, "-c", SEARCH], check=True)
