"""What the image's builder gives to the Dockerfile."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from setup.image_inputs import CA_IN_BUILD, CODE, code_sha256, write_secrets
from setup.venv import ROOT


def test_the_code_hash_is_of_names_and_contents(tmp_path: Path) -> None:
    launcher, *packages = CODE
    shutil.copy(ROOT / launcher, tmp_path)
    for package in packages:
        (tmp_path / package).mkdir()
        shutil.copy(ROOT / package / "__init__.py", tmp_path / package)
    before = code_sha256(tmp_path)
    (tmp_path / "kubeflow" / "manifests.yaml").write_text("not a module")
    assert code_sha256(tmp_path) == before
    module = tmp_path / "kubeflow" / "new.py"
    module.write_text("")
    added = code_sha256(tmp_path)
    module.write_text("x = 1\n")
    changed = code_sha256(tmp_path)
    module.rename(tmp_path / "trainer" / "new.py")

    assert len({before, added, changed, code_sha256(tmp_path)}) == 4


def test_the_image_has_all_that_the_project_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert list(CODE) == project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    build = (ROOT / "setup/build_image.sh").read_text()
    assert f"setup {' '.join(CODE)} |" in build
    dockerfile = (ROOT / "Dockerfile").read_text()
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    for part in CODE:
        assert f"COPY {part} /opt/app/{part}\n" in dockerfile
        assert f"!{part}" in kept
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / name).exists() for name in source.split())


def test_the_servers_image_starts_what_the_project_installs() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    (server,) = [stage for stage in stages if " AS serving\n" in stage]
    assert stages[-1].endswith(" AS cpu\n"), "the last stage is the default"
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    (launcher,) = re.findall(
        r"^COPY --from=packages-cpu /opt/env/bin/(\S+) /usr/bin/\1$", server, re.MULTILINE
    )
    assert launcher in scripts
    (source, entrypoint) = re.findall(r"^COPY (serving/\S+) (\S+)$", server, re.MULTILINE)[0]
    assert f'ENTRYPOINT ["{entrypoint}"]' in server
    assert os.access(ROOT / source, os.X_OK)
    assert f"exec {launcher} " in (ROOT / source).read_text()


@pytest.mark.slow
def test_secrets_carry_the_index_and_the_certificates_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = tmp_path / "own.pem"
    certificates.write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://user:secret@packages.invalid/simple")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates))

    write_secrets(tmp_path)

    settings = (tmp_path / "pip.conf").read_text()
    assert "index-url = https://user:secret@packages.invalid/simple\n" in settings
    assert f"cert = {CA_IN_BUILD}\n" in settings
    assert (tmp_path / "ca.pem").read_text() == certificates.read_text()


@pytest.mark.slow
def test_no_certificates_are_no_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))

    write_secrets(tmp_path)

    assert "cert" not in (tmp_path / "pip.conf").read_text()
    assert (tmp_path / "ca.pem").read_bytes() == b""
