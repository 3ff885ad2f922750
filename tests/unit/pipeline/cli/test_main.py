"""The command line as a whole: what it lists, what it imports, how it shows errors."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from pipeline import product
from pipeline.cli.main import PAGES, Page, main
from pipeline.errors import RefusedError, UserError
from pipeline.runtime import gpus


@pytest.mark.parametrize("name", sorted(PAGES))
def test_help_says_of_a_command_what_its_page_says(name: str) -> None:
    command = main.get_command(click.Context(main), name)

    assert command is not None
    assert command.name == name
    first = " ".join((command.help or "").split("\n\n")[0].split())
    assert first == PAGES[name].help


@pytest.mark.slow
def test_a_page_s_help_imports_nothing_that_takes_seconds() -> None:
    script = (
        "import sys\nfrom click import Context\nfrom pipeline.cli.main import PAGES, main\n"
        "for name in PAGES: main.get_command(Context(main), name)\n"
        "print([name for name in ('tensorflow', 'tfx', 'apache_beam') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert shown.stdout == "[]\n"


def test_help_lists_every_command_and_imports_none() -> None:
    script = (
        "import sys\nfrom click.testing import CliRunner\nfrom pipeline.cli.main import main\n"
        "print(CliRunner().invoke(main, ['--help']).output)\n"
        "pages = [name for name in sys.modules if name.startswith(('pipeline.', 'serving', 'kubeflow'))]\n"
        "print(sorted(pages), [name for name in ('tensorflow', 'tfx', 'numpy') if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout

    for name in PAGES:
        assert f"\n  {name}" in shown
    loaded = [
        "pipeline.cli",
        "pipeline.cli.main",
        "pipeline.errors",
        "pipeline.product",
        "pipeline.runtime",
    ]
    loaded += [f"pipeline.runtime.{name}" for name in ("environment", "folders", "gpus", "process")]
    assert shown.strip().endswith(f"{loaded} []")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("root: too long"), 2, f"{product.NAME}: root: too long\n"),
        (RefusedError("Trainer failed"), 1, f"{product.NAME}: Trainer failed\n"),
        (
            FileNotFoundError(2, "No such file or directory", "x.toml"),
            2,
            f"{product.NAME}: x.toml: No such file or directory\n",
        ),
    ],
)
def test_an_error_of_a_user_is_one_line(
    error: Exception, code: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    command = click.Command("fail", callback=fail)
    monkeypatch.setitem(PAGES, "fail", Page(f"{__name__}:COMMAND", ""))
    monkeypatch.setitem(globals(), "COMMAND", command)

    done = CliRunner().invoke(main, ["fail"])

    assert (done.exit_code, done.stderr) == (code, line)


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    command = click.Command("fail", callback=lambda: 1 / 0)
    monkeypatch.setitem(PAGES, "fail", Page(f"{__name__}:COMMAND", ""))
    monkeypatch.setitem(globals(), "COMMAND", command)

    done = CliRunner().invoke(main, ["fail"])

    assert isinstance(done.exception, ZeroDivisionError)


def test_an_unknown_command_is_bad_usage() -> None:
    done = CliRunner().invoke(main, ["runn"])

    assert done.exit_code == 2
    assert "No such command 'runn'" in done.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]

    done = CliRunner().invoke(main, ["--version"])

    assert done.stdout == f"{product.NAME}, version {project['version']}\n"


@pytest.mark.parametrize(("command", "seen"), [("report", "-1"), ("serve", "0")])
def test_a_command_that_computes_on_no_gpu_hides_them_before_tensorflow_looks(
    command: str, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def look() -> None:
        looks.append(os.environ[gpus.VISIBLE_DEVICES])

    tensorflow = SimpleNamespace(config=SimpleNamespace(list_physical_devices=look))
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    monkeypatch.setenv(gpus.VISIBLE_DEVICES, "0")
    monkeypatch.setattr(gpus, "_hidden", [])
    monkeypatch.setattr(gpus, "_DEVICES", tmp_path)
    (tmp_path / "nvidia0").touch()
    main.get_command(click.Context(main), command)
    assert looks == [seen]
    assert gpus.present(), "the Trainer still gets them, in its own process"
