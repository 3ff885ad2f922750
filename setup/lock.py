"""Write uv.lock again from pyproject.toml, naming versions and hashes but no package index.

A lock with addresses in it only installs from those addresses. Without them it installs from
whatever index a machine is set up for, a company's mirror included; the hashes still decide what is
accepted. `uv export` reads such a lock; setup/venv.py installs from the export.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from setup.venv import ROOT, uv_environment

LOCK = ROOT / "uv.lock"
NO_INDEX = "https://index.invalid/simple"  # RFC 2606: never resolves


def without_addresses(lock: str) -> str:
    """The lock with every index replaced by NO_INDEX and every file address by the file's name."""
    lock = re.sub(r'registry = "https?://[^"]+"', f'registry = "{NO_INDEX}"', lock)
    return re.sub(r'url = "https?://[^"]+/([^/"]+)"', r'url = "\1"', lock)


def main() -> int:
    """Resolve with this machine's index; versions in the lock stay where they still fit."""
    # Only here: whoever imports pip gets the standard library's distutils for good, and setuptools then
    # refuses to be imported, by TFX for one.
    from pip._internal.models.index import PyPI

    tools = Path(sys.prefix) / "tools"
    env = uv_environment(tools)
    index = env.setdefault("UV_DEFAULT_INDEX", PyPI.simple_url)
    before = LOCK.read_text() if LOCK.exists() else ""
    LOCK.write_text(before.replace(NO_INDEX, index))
    command: list[str | Path] = [tools / "bin/uv", "lock", "--python", sys.executable]
    code = subprocess.run(command, env=env, cwd=ROOT, check=False).returncode
    LOCK.write_text(without_addresses(LOCK.read_text()) if code == 0 else before)
    return code


if __name__ == "__main__":
    sys.exit(main())
