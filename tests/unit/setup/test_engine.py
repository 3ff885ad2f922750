"""The engine that builds the image: the first one that works, not the first one that is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from setup.venv import ROOT


def install(folder: Path, name: str, works: str) -> None:
    """A program that succeeds where its first argument is one of the words of `works`."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f'#!/bin/sh\ncase " {works} " in *" $1 "*) ;; *) exit 1 ;; esac\n')
    (folder / name).chmod(0o755)


def find_engine(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", ROOT / "setup/find_engine.sh"],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("docker", "found"),
    [
        ("info buildx", "docker"),
        ("buildx", "podman"),  # a client without a daemon
        ("info", "podman"),  # no buildx, and so no secrets
    ],
)
def test_docker_is_taken_only_where_it_can_build(tmp_path: Path, docker: str, found: str) -> None:
    install(tmp_path / "bin", "docker", docker)
    install(tmp_path / "bin", "podman", "info")
    install(tmp_path / "bin", "buildah", "info")
    assert find_engine(tmp_path / "bin").stdout == f"{found}\n"


def test_no_engine_is_one_clear_line(tmp_path: Path) -> None:
    install(tmp_path / "bin", "docker", "version")
    done = find_engine(tmp_path / "bin")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "podman" in done.stderr
