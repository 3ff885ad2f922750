"""The product's name stands in one file, and pyproject.toml agrees with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline import product
from pipeline.config import PipelineConfig

REPOSITORY = Path(__file__).parents[3]


def test_pyproject_has_the_same_names() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

    assert project["name"] == product.DISTRIBUTION
    assert list(project["scripts"]) == [product.NAME, "tensorflow_model_server"]


def test_the_settings_have_the_names() -> None:
    config = PipelineConfig()

    assert (config.name, config.push.model_name, config.data.dataset) == (
        product.NAME,
        product.NAME,
        product.DATASET,
    )


@pytest.mark.slow
def test_a_fork_renames_itself_as_the_page_says(tmp_path: Path) -> None:
    """What docs/fork.md says, done to a copy; the tests of the command line pass in it."""
    for part in ("components", "kubeflow", "pipeline", "serving", "tests", "trainer"):
        shutil.copytree(REPOSITORY / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(REPOSITORY / part, tmp_path)
    name = "letters" if product.NAME != "letters" else "figures"
    _replace(tmp_path / "pipeline/product.py", r'^NAME = ".*"$', f'NAME = "{name}"')
    _replace(tmp_path / "pyproject.toml", r'^name = ".*"$', f'name = "{name}-tfx"')
    _replace(tmp_path / "pyproject.toml", rf"^{product.NAME} = (.*)$", rf"{name} = \1")

    def output(*command: str) -> str:
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    (rename,) = re.findall("^grep .*$", (REPOSITORY / "docs/fork.md").read_text(), re.MULTILINE)
    names = {"mnist": product.NAME, "letters": name}
    output("sh", "-c", re.sub("|".join(names), lambda found: names[found[0]], rename))
    for kind in ("manifests", "configs"):
        for file in (tmp_path / "kubeflow" / kind).rglob("*.*"):
            assert product.NAME not in file.read_text().replace(f"data/{product.DATASET}", ""), file

    checks = (
        "tests/unit/pipeline/cli/test_main.py",
        "tests/unit/pipeline/test_product.py",
        "tests/unit/kubeflow/test_manifests.py",
    )
    tests = output(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *checks
    )
    assert re.search(r"\d+ passed", tests)
    help_of_serve = output(
        sys.executable, "-c", "from pipeline.cli.main import main; main(['serve', '--help'])"
    )
    assert f"var/serving/{name}" in help_of_serve
    made = output("make", "-n", "-o", ".venv/.ready", "serve", "image")
    assert f"/{name} serve" in made
    assert f"{name}-tfx:cpu" in made
    for text in (help_of_serve, made):
        assert product.NAME not in text.replace(f"var/data/{product.DATASET}", "")


def _replace(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1
    file.write_text(text)
