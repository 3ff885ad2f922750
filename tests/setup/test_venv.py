"""The set-up: which systems it takes, and what it says to the others."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from setup import lock, venv

DEBIAN_12 = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
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
