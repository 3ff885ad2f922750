"""The files that `base` and `base_weights` of a recipe name: another content is another training."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from trainer.recipes import Params


def fingerprint(base: str, base_weights: str) -> str:
    """SHA-256 of the files that are there, of a folder with their names; "" where neither names any."""
    total = hashlib.sha256()
    found = False
    for place in (Path(name) for name in (base, base_weights) if name):
        files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
        for path in files:
            found = True
            total.update(f"{path.relative_to(place)}\0".encode())
            about = path.stat()
            total.update(_digest(path, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino))
    return total.hexdigest() if found else ""


@functools.lru_cache(maxsize=1024)
def _digest(path: Path, *_state: int) -> bytes:
    """SHA-256 of a file; the Trainer of a local run, which asks too, does not read it again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def check(params: Params, expected: str) -> None:
    """Refuse files that are others than when the pipeline was made, as in the image of a pod they may be.

    Raises:
        ValueError: one line that says what to do.
    """
    if expected and fingerprint(params.base, params.base_weights) != expected:
        places = " and ".join(filter(None, (params.base, params.base_weights)))
        raise ValueError(
            f"trainer.base: {places} is missing here, or another than where the pipeline was made: use the "
            "same files in both places, and make it again after a change"
        )
