"""What the libraries find when they are imported: their environment, no charts, a collector that waits."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.runtime import folders


@contextmanager
def scratch_environment(scratch: Path) -> Iterator[None]:
    """Keep what libraries write on the side in `scratch`, which is removed at the end.

    A killed run leaves it; recovery.clean_up removes it with the rest.
    """
    with folders.made(scratch):
        try:
            with _environment(scratch):
                yield
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _environment(scratch: Path) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= {
        # AutoGraph and Beam leave files in the temporary folder when they are killed.
        "TMPDIR": str(scratch),
        # Keras writes a configuration into the home folder, and obeys one that may ask for JAX.
        "KERAS_HOME": str(scratch / "keras"),
        "KERAS_BACKEND": "tensorflow",
        # matplotlib keeps a list of fonts in the home folder.
        "MPLCONFIGDIR": str(scratch / "matplotlib"),
        # Beam makes an argument parser each time it looks at an option, and each parser looks for
        # translations on the disk: a fifth of the time of a small Beam pipeline.
        "LANGUAGE": "C",
    }
    tempfile.tempdir = None  # read TMPDIR again
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        tempfile.tempdir = None


# What Keras imports where it finds it, for functions that nothing here calls: time, and 50 MB together.
# Not IPython: without it TFMA lacks half of its names, and says nothing.
_UNUSED = ("matplotlib", "sklearn")


@contextmanager
def heavy_imports(needed: Collection[str] = ()) -> Iterator[None]:
    """Import within this what stays to the end of the process.

    TensorFlow, Beam and TFX make a million objects. The garbage collector looks through them again and
    again while they are imported, at each later collection and once more at the end: half of the time of
    the import. Until the end of the block, nothing finds _UNUSED, but for what is `needed` of it.
    """
    gc.disable()
    hidden = [name for name in _UNUSED if name not in needed and name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
        gc.freeze()
        gc.enable()
