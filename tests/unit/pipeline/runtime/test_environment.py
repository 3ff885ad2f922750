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
assert not [name for name in sys.modules if name.startswith("matplotlib")]
assert not list(Path.home().rglob("fontlist*"))
import matplotlib.figure
"""


@pytest.mark.slow
def test_keras_does_not_bring_pyplot_and_the_charts_still_have_matplotlib(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True, env=os.environ | {"HOME": str(tmp_path)})
