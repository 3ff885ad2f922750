"""Data sets that are made here, without a download, from what the installed packages carry.

Each shows what the pipeline does with images that are not MNIST's: see MADE.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets.made import digits, letters, mnist_m
from pipeline.errors import UserError

MARK = ".made.json"  # in the folder of a data set that was made here, written last


class MakeError(UserError):
    """A data set cannot be made: one line."""


@dataclass(frozen=True)
class Made:
    """A data set that can be made.

    Attributes:
        make: writes it into an empty folder; takes the folder of MNIST's files where `from_mnist` says so,
            and returns facts about what was made.
        settings: `key=value`, with which a run reads and learns it.
        from_mnist: whether it is made of MNIST.
        version: of the maker: what it makes has changed where this has.
    """

    make: Callable[..., Mapping[str, Any]]
    settings: tuple[str, ...] = ()
    from_mnist: bool = False
    version: int = 1


MADE: Mapping[str, Made] = {
    "letters": Made(
        letters.make, ("data.size=28x28", "data.bad_images=skip", "trainer.epochs=12"), version=2
    ),
    "mnist-m": Made(mnist_m.make, ("trainer.recipe=residual",), from_mnist=True),
    "digits-8": Made(digits.make_digits_8, ("trainer.epochs=40",)),
    "emnist-like": Made(digits.make_emnist_like, ("data.orient=transpose",), from_mnist=True),
}


def make(name: str, dest: Path, mnist: Callable[[], Path], maker: Made | None = None) -> tuple[Path, bool]:
    """Make a data set, or find that it is there.

    It appears under its name when it is whole: it is written next to it and renamed.

    Args:
        name: a key of MADE.
        dest: folder of the data sets' folders.
        mnist: gives the folder of MNIST's files; asked only where it is needed.
        maker: another one than MADE's.

    Returns:
        Its folder, and whether it was made now.

    Raises:
        MakeError: for an unknown name, or where a folder of that name holds something else.
        OSError: where the folder cannot be written.
    """
    if maker is None and name not in MADE:
        raise MakeError(f"unknown data set {name!r}: {', '.join(MADE)} can be made")
    maker = maker or MADE[name]
    folder = dest / name
    if _is_there(folder, name, maker.version):
        return folder, False
    source = [mnist()] if maker.from_mnist else []
    dest.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=dest, prefix=f".{name}.", ignore_cleanup_errors=True) as scratch:
        made = Path(scratch, name)
        made.mkdir()
        facts = maker.make(made, *source)
        (made / MARK).write_text(json.dumps({"name": name, "version": maker.version, **facts}, indent=2))
        try:
            made.rename(folder)
        except OSError:
            # Another process may have made it meanwhile.
            if _is_there(folder, name, maker.version):
                return folder, False
            raise
    return folder, True


def _is_there(folder: Path, name: str, version: int) -> bool:
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / MARK).read_text())
    except (OSError, ValueError):
        found = {}
    if (found.get("name"), found.get("version")) != (name, version):
        raise MakeError(f"{folder} is there, and this version did not make it: move it away")
    return True
