"""The set-up: which systems it takes, and what it says to the others."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from setup import lock, venv

DEBIAN_12 = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
FIND_PYTHON = venv.ROOT / "setup/find_python.sh"
UBUNTU_22 = {"ID": "ubuntu", "VERSION_ID": "22.04", "PRETTY_NAME": "Ubuntu 22.04.5 LTS"}


def test_a_new_enough_system_needs_nothing() -> None:
    assert not venv.needs_newer_glibc((2, 39), UBUNTU_22, "x86_64")
    assert not venv.needs_newer_glibc((2, 41), {}, "x86_64")


def test_debian_12_gets_a_newer_glibc() -> None:
    assert venv.needs_newer_glibc((2, 36), DEBIAN_12, "x86_64")


@pytest.mark.parametrize(
    ("glibc", "release", "machine", "said"),
    [
        ((2, 35), UBUNTU_22, "x86_64", "Ubuntu 22.04.5 LTS has glibc 2.35"),
        ((0, 0), {}, "x86_64", "this system has glibc 0.0"),
        ((2, 41), DEBIAN_12, "aarch64", "this machine is aarch64"),
    ],
)
def test_any_other_system_is_one_clear_line(
    glibc: tuple[int, int], release: dict[str, str], machine: str, said: str
) -> None:
    with pytest.raises(venv.SetupError, match=re.escape(said)) as caught:
        venv.needs_newer_glibc(glibc, release, machine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "has_ensurepip", "release", "said"),
    [
        ((3, 10), True, DEBIAN_12, "TFX 1.21 does not run on python3.10, only on Python 3.11, 3.12, 3.13"),
        ((3, 14), True, {}, "TFX 1.21 does not run on python3.14"),
        ((3, 11), False, DEBIAN_12, "python3.11 has no ensurepip: apt-get install python3.11-venv"),
        ((3, 12), False, {"ID": "mint", "ID_LIKE": "ubuntu debian"}, "apt-get install python3.12-venv"),
        ((3, 13), False, {}, "python3.13 has no ensurepip: install the package"),
    ],
)
def test_another_or_incomplete_python_is_one_clear_line(
    version: tuple[int, int], has_ensurepip: bool, release: dict[str, str], said: str
) -> None:
    with pytest.raises(venv.SetupError, match=re.escape(said)) as caught:
        venv.check_python(version, has_ensurepip, release)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", venv.PYTHONS)
def test_each_known_python_is_taken(version: tuple[int, int]) -> None:
    venv.check_python(version, True, DEBIAN_12)


def test_one_range_of_pythons_stands_in_all_places() -> None:
    pyproject = tomllib.loads((venv.ROOT / "pyproject.toml").read_text())
    oldest, newest = venv.PYTHONS[0], venv.PYTHONS[-1]
    after = (newest[0], newest[1] + 1)
    assert pyproject["project"]["requires-python"] == (f">={oldest[0]}.{oldest[1]},<{after[0]}.{after[1]}")
    assert pyproject["tool"]["mypy"]["python_version"] == f"{oldest[0]}.{oldest[1]}"
    script = FIND_PYTHON.read_text()
    assert f"{oldest} <= sys.version_info < {after}" in script
    names = " ".join(f"python{major}.{minor}" for major, minor in reversed(venv.PYTHONS))
    assert f" {names} python3; do" in script


def pythons(folder: Path, **versions: str | None) -> dict[str, str]:
    """An environment in which each name is a Python of that version, or one that does not start."""
    folder.mkdir()
    for tool in ("dirname", "sed"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    for name, version in versions.items():
        run = (
            f"exec {sys.executable} -c 'import sys; sys.version_info = ({version}); '\"$2\""
            if version
            else "exit 1"
        )
        (folder / name).write_text(f"#!/bin/sh\n{run}\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def find_python(checkout: Path, path: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the script says in a checkout of its own."""
    (checkout / "setup").mkdir(parents=True, exist_ok=True)
    script = shutil.copy(FIND_PYTHON, checkout / "setup")
    return subprocess.run(
        ["/bin/sh", script, *arguments], env=path, capture_output=True, text=True, check=False
    )


def test_the_newest_python_that_starts_is_taken(tmp_path: Path) -> None:
    names = {"python3.13": None, "python3.12": "3, 12", "python3.11": "3, 11", "python3": "3, 14"}
    path = pythons(tmp_path / "bin", **names)
    assert find_python(tmp_path, path).stdout == f"{tmp_path}/bin/python3.12\n"
    assert find_python(tmp_path, path, "python3.11").stdout == f"{tmp_path}/bin/python3.11\n"


def test_an_environment_keeps_its_python(tmp_path: Path) -> None:
    path = pythons(tmp_path / "bin", **{"python3.13": "3, 13", "python3.11": "3, 11"})
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/pyvenv.cfg").write_text(f"executable = {tmp_path}/bin/python3.11\n")
    assert find_python(tmp_path, path).stdout == f"{tmp_path}/bin/python3.11\n"
    (tmp_path / "bin/python3.11").unlink()
    assert find_python(tmp_path, path).stdout == f"{tmp_path}/bin/python3.13\n"


@pytest.mark.parametrize("arguments", [(), ("python3.13",)])
def test_no_python_is_one_clear_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = find_python(tmp_path, pythons(tmp_path / "bin", python3="3, 14"), *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "setup: python3.13 not found" if arguments else "setup: no Python 3.11, 3.12 or 3.13 on "
    )


def test_this_environment_runs_on_a_new_enough_glibc() -> None:
    assert venv.system_glibc() >= venv.NEEDED_GLIBC
    assert Path(sys.prefix, "bin/python").resolve().is_relative_to(Path(sys.prefix).resolve())


def test_a_second_make_does_nothing() -> None:
    done = subprocess.run(
        ["make", "--question", "setup"], cwd=venv.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lock_names_hashes_but_no_index() -> None:
    text = lock.LOCK.read_text()
    assert set(re.findall(r"https?://[^\"]+", text)) == {lock.NO_INDEX}
    files = re.findall(r"url = \"[^\"]+\", hash = \"sha256:[0-9a-f]{64}\"", text)
    assert len(files) == text.count("url = ") > 200


def test_addresses_are_stripped_from_a_lock() -> None:
    real = (
        'source = { registry = "https://index.example/simple" }\n'
        'wheels = [{ url = "https://files.example/a/b/six-1.0-py3-none-any.whl", hash = "sha256:00" }]\n'
    )
    stripped = lock.without_addresses(real)
    assert stripped == (
        f'source = {{ registry = "{lock.NO_INDEX}" }}\n'
        'wheels = [{ url = "six-1.0-py3-none-any.whl", hash = "sha256:00" }]\n'
    )
    assert lock.without_addresses(stripped) == stripped
