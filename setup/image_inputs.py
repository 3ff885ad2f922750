"""What the builder of the container image gives to the Dockerfile: what the labels say, and secrets.

    .venv/bin/python -m setup.image_inputs FOLDER

writes `pip.conf` and `ca.pem` into FOLDER, from pip's settings on this machine, and prints the build
arguments that the labels are made of: name and version of the project, hashes of its code and of uv.lock.
"""

from __future__ import annotations

import hashlib
import sys
import tomllib
from pathlib import Path

from setup.venv import ROOT, uv_environment

CA_IN_BUILD = "/run/secrets/ca.pem"
# As pyproject.toml has them for a wheel; a test compares.
CODE = ("_tfx_image_pipeline.py", "components", "kubeflow", "pipeline", "serving", "trainer")


def code_sha256(root: Path = ROOT) -> str:
    """SHA-256 over names and contents of the project's modules, as they are in the image."""
    digest = hashlib.sha256()
    for part in map(root.joinpath, CODE):
        for path in [part] if part.suffix == ".py" else sorted(part.rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def lock_sha256() -> str:
    """SHA-256 of uv.lock."""
    return hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()


def write_secrets(folder: Path) -> None:
    """Put pip's index and certificates where the build mounts them from; both files may be empty."""
    env = uv_environment(Path(sys.prefix) / "tools")
    lines = ["[global]"]
    for setting, variable in (("index-url", "UV_DEFAULT_INDEX"), ("extra-index-url", "UV_EXTRA_INDEX_URL")):
        if value := env.get(variable):
            lines.append(f"{setting} = {value}")
    certificates = Path(env.get("SSL_CERT_FILE", ""))
    if certificates.is_file():
        lines.append(f"cert = {CA_IN_BUILD}")
    (folder / "ca.pem").write_bytes(certificates.read_bytes() if certificates.is_file() else b"")
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")


def main() -> int:
    write_secrets(Path(sys.argv[1]))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    arguments = {
        "NAME": project["name"],
        "VERSION": project["version"],
        "CODE_SHA256": code_sha256(),
        "LOCK_SHA256": lock_sha256(),
    }
    print(*(f"--build-arg {key}={value}" for key, value in arguments.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
