"""How the one result of a Beam pipeline gets back to the node that ran it: workers may be elsewhere."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import apache_beam as beam

from components.shared import files

_FILE = ".handover"  # removed again: an artifact holds no file of this name


def give(result: beam.PCollection, folder: str) -> None:
    """Write the only element of a collection; to be taken when the pipeline has ended.

    Args:
        result: of one element, of types that this project has.
        folder: of an output artifact, which workers and the node share.
    """
    _ = (
        result
        | "Pickle" >> beam.Map(pickle.dumps)
        | "Hand over" >> beam.Map(_write, str(Path(folder, _FILE)))
    )


def take(folder: str) -> Any:
    """What `give` wrote."""
    file = Path(folder, _FILE)
    result = pickle.loads(file.read_bytes())
    file.unlink()
    return result


def _write(content: bytes, path: str) -> None:
    files.write_bytes(path, content)
