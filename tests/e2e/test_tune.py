"""`mnist tune`, and the recipe that it leaves for `mnist run`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from trainer.recipes import resolve

MNIST = str(Path(sys.prefix) / "bin/mnist")


def mnist(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MNIST, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )


def test_a_search_ends_with_a_recipe(tiny_mnist_dir: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    done = mnist(
        "tune",
        "--trials=2",
        *("--data-dir", tiny_mnist_dir),
        *("--root", tmp_path / "root"),
        *("--set", "trainer.train_steps=20"),
        *("-o", recipe),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 2 trials" in done.stdout
    again = f"mnist run --recipe-file {recipe} --data-dir {tiny_mnist_dir} --root {tmp_path / 'root'}"
    assert done.stdout.rstrip().endswith(again)
    found = tomllib.loads(recipe.read_text())
    params = resolve(found.pop("recipe"), **found)
    assert params.train_steps == 20
    assert "learning_rate" in found
    assert not (tmp_path / "root" / "serving").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rate = ", "recipe.toml: Invalid value (at"),
        ("learnin_rate = 1", "did you mean trainer.learning_rate"),
        ("learning_rate = -1", "trainer.learning_rate"),
        ('recipe = "faster"', "did you mean 'fast'"),
    ],
)
def test_a_wrong_recipe_file_is_one_line(
    text: str, said: str, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    done = mnist(
        "run",
        *("--recipe-file", tmp_path / "recipe.toml"),
        *("--data-dir", tiny_mnist_dir),
        *("--root", tmp_path / "root"),
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "root").exists()


def test_own_functions_that_are_not_there_are_refused_before_anything_runs(
    tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    done = mnist(
        "run",
        *("--set", "trainer.model_fn=my_models.model_fn"),
        *("--data-dir", tiny_mnist_dir),
        *("--root", tmp_path / "root"),
    )
    assert done.returncode == 2
    assert done.stderr == (
        "mnist: trainer.model_fn=my_models.model_fn: there is no module 'my_models'; see PYTHONPATH\n"
    )
    assert not (tmp_path / "root").exists()
