"""The files that no program of ours reads: what they name is there, and stands in one way everywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from setup.venv import PYTHONS, ROOT

BIN = Path(sys.prefix) / "bin"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def steps(workflow: Path) -> list[dict[str, Any]]:
    """The steps of all jobs of a workflow."""
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def packages_of_the_readme() -> str:
    """What README.md tells a newcomer to install."""
    found = re.search(
        r"^apt-get install ([a-z0-9 -]*[a-z0-9]) ", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    assert found
    return found[1]


@pytest.mark.slow
def test_workflows_keep_the_schema() -> None:
    assert WORKFLOWS
    subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS], check=True
    )


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_targets_of_the_makefile(workflow: Path) -> None:
    commands = [step["run"] for step in steps(workflow) if "make " in step.get("run", "")]
    assert commands
    for command in commands:
        target = command.split("make ")[1].split()[0]
        assert target in TARGETS, command


def test_each_push_is_checked_on_each_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())
    assert workflow["jobs"]["check"]["strategy"]["matrix"]["python"] == [
        f"{major}.{minor}" for major, minor in PYTHONS
    ]


@pytest.mark.slow
def test_hooks_run_tools_of_the_environment() -> None:
    subprocess.run(
        [BIN / "pre-commit", "validate-config", ROOT / ".pre-commit-config.yaml"],
        check=True,
        capture_output=True,
    )
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repository["hooks"]:
        tool = hook["entry"].split()[0]
        assert tool.startswith(".venv/bin/")
        assert (BIN / Path(tool).name).exists()


def test_lint_and_the_hooks_run_the_same_tools() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repository["hooks"]}
    recipe = MAKEFILE.split("\nlint:")[1].split("\n\n")[0]
    assert hooks == set(re.findall(r"@\$\(BIN\)/(\S+)", recipe))


def test_the_dev_container_installs_what_the_readme_says() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert container["onCreateCommand"].endswith(f"apt-get install --yes {packages_of_the_readme()}")


def test_the_changelog_has_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"\n## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_target_is_declared_and_says_what_it_does() -> None:
    declared = set(re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)[1].split())  # type: ignore[index]
    described = set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))
    assert declared == described == TARGETS


@pytest.mark.parametrize("name", ["Makefile", "CONTRIBUTING.md"])
def test_paths_that_are_named_are_there(name: str) -> None:
    text = (ROOT / name).read_text()
    rooms = "(?:components|docs|kubeflow|pipeline|serving|setup|tests|trainer)"
    paths = re.findall(rf"(?<![\w./-]){rooms}(?:/[\w-]+)*(?:/|/[\w-]+\.(?:py|sh|md|toml))", text)
    modules = re.findall(rf"-m ({rooms}(?:\.\w+)+)", text)
    paths += [f"{module.replace('.', '/')}.py" for module in modules]
    assert paths
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing
