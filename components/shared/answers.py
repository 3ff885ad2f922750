"""What the Evaluator writes of a model's answers, for the report, the monitor and people: Parquet files.

A file of answers for each file of examples, in its order, and one of the worst mistakes with the examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from components.shared import files

NAME = "answers-{number:05d}-of-{count:05d}.parquet"
PATTERN = "answers-*.parquet"
MISTAKES_FILE = "worst_mistakes.parquet"


@dataclass(frozen=True)
class Mistake:
    """An example that was classified wrongly.

    Attributes:
        id: where it comes from.
        label: its true class.
        predicted: the class that the model gave it.
        label_probability: that the model gave the true class.
        predicted_probability: that it gave the other one.
        example: the serialized tf.Example.
    """

    id: str
    label: int
    predicted: int
    label_probability: float
    predicted_probability: float
    example: bytes


class Writer:
    """Writes one file of answers, batch by batch; without any there is no file."""

    def __init__(self, path: str) -> None:
        """Know where; the number of classes is that of the first batch."""
        self._path = path
        self._file: parquet.ParquetWriter | None = None

    def write(
        self, ids: Sequence[str], labels: NDArray[np.int64], probabilities: NDArray[np.float32]
    ) -> None:
        """Add answers: N ids, int64 [N], float32 [N, C]."""
        of_classes = pa.FixedSizeListArray.from_arrays(
            pa.array(probabilities.ravel()), probabilities.shape[1]
        )
        table = pa.table({"id": pa.array(ids, pa.string()), "label": labels, "probabilities": of_classes})
        if self._file is None:
            self._file = parquet.ParquetWriter(self._path, table.schema)
        self._file.write_table(table)

    def close(self) -> None:
        """Complete the file."""
        if self._file is not None:
            self._file.close()


@contextmanager
def writing(folder: str, number: int, count: int) -> Iterator[Writer]:
    """A writer of the answers to one of `count` files of examples; its own is whole or not there at all."""
    with files.draft(Path(folder, NAME.format(number=number, count=count))) as unfinished:
        writer = Writer(unfinished)
        try:
            yield writer
        finally:
            writer.close()


def confidences(folder: Path) -> Iterator[NDArray[np.float32]]:
    """The highest probability of each answer, in batches: float32 [n]."""
    for path in sorted(folder.glob(PATTERN)):
        for batch in parquet.ParquetFile(path).iter_batches(columns=["probabilities"]):
            column = batch.column(0)
            yield np.asarray(column.flatten()).reshape(len(column), -1).max(axis=1)


def write_mistakes(folder: str, mistakes: Sequence[Mistake]) -> None:
    """Write MISTAKES_FILE, the worst first."""
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("label", pa.int64()),
            ("predicted", pa.int64()),
            ("label_probability", pa.float64()),
            ("predicted_probability", pa.float64()),
            ("example", pa.binary()),
        ]
    )
    table = pa.Table.from_pylist([vars(mistake) for mistake in mistakes], schema)
    with files.draft(Path(folder, MISTAKES_FILE)) as unfinished:
        parquet.write_table(table, unfinished)


def read_mistakes(folder: str) -> list[Mistake]:
    """What `write_mistakes` wrote."""
    return [Mistake(**row) for row in parquet.read_table(Path(folder, MISTAKES_FILE)).to_pylist()]
