"""Builds the environment of the container image: the locked packages and nothing that installs packages.

Runs in the first stage of the Dockerfile, on the same interpreter as the image itself.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from setup.venv import (
    ROOT,
    SetupError,
    call,
    fetch_tools,
    needs_newer_glibc,
    os_release,
    system_glibc,
    uv_environment,
)

# For compilers and editors: no code of ours or of TFX's opens these at run time. The packages' own tests,
# 120 MB, go too.
NOT_NEEDED = ("tensorflow/include", "clang/native", "tensorflow/xla_aot_runtime_src")
LAUNCHER = """\
#!{python}
from {module} import {function}

{function}()
"""


def build(venv: Path, app: Path, extras: list[str]) -> None:
    """Make `venv`, byte-compiled, hashes checked; what is in `app` can be imported in it.

    Raises:
        SetupError: where a package cannot be installed.
    """
    if needs_newer_glibc(system_glibc(), os_release(), os.uname().machine):
        raise SetupError("the image's base must be Debian 13 or later: give another BASE")
    tools = Path("/tmp/tools")
    fetch_tools(tools)
    call([sys.executable, "-m", "venv", "--without-pip", venv], "creating the virtual environment")
    python, uv = venv / "bin/python", tools / "bin/uv"
    requirements = tools / "requirements.txt"
    env = uv_environment(tools) | {
        "UV_CACHE_DIR": str(tools / "cache"),
        # Layers may lose a file's time, by which Python would take its bytecode for out of date.
        "PYC_INVALIDATION_MODE": "UNCHECKED_HASH",
    }
    export: list[str | Path] = [uv, "export", "--frozen", "--offline", "--no-emit-project", "--quiet"]
    for extra in extras:
        export += ["--extra", extra]
    call([*export, "--python", python, "--output-file", requirements], "reading uv.lock", env)
    sync: list[str | Path] = [
        uv,
        "pip",
        "sync",
        "--require-hashes",
        "--compile-bytecode",
        "--link-mode",
        "copy",
    ]
    if subprocess.run([*sync, requirements, "--python", python], env=env, check=False).returncode:
        raise SetupError("uv could not install the packages: its message is above")
    (packages,) = venv.glob("lib/python3.*/site-packages")
    tests = [folder for folder in packages.rglob("tests") if folder.is_dir()]
    for folder in (*(packages / name for name in NOT_NEEDED), *tests):
        shutil.rmtree(folder, ignore_errors=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (packages / f"{project['name']}.pth").write_text(f"{app}\n")
    for name, target in project["scripts"].items():
        module, _, function = target.partition(":")
        launcher = venv / "bin" / name
        launcher.write_text(LAUNCHER.format(python=python, module=module, function=function))
        launcher.chmod(0o755)
    shutil.rmtree(tools)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("venv", type=Path, help="folder of the environment")
    parser.add_argument("app", type=Path, help="folder of this project's code in the image")
    parser.add_argument("--extra", action="append", default=[], help="extra of pyproject.toml")
    args = parser.parse_args()
    try:
        build(args.venv, args.app, args.extra)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
