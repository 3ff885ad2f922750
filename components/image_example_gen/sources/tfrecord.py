"""TFRecord files of tf.Examples with `image/encoded`, `image/class/label` and perhaps `image/class/text`.

A file's split is the beginning of its name: `train-00000-of-00010`, `validation.tfrecord`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from components.image_example_gen.sources.base import (
    SPLIT_NAMES,
    SPLITS,
    DataSet,
    Options,
    Part,
    Pictures,
    SourceError,
    in_batches,
)
from components.image_example_gen.sources.survey import Survey, offset_of
from trainer import features

ENCODED, LABEL, TEXT = "image/encoded", "image/class/label", "image/class/text"
_FRAME = re.compile(r"\{\{.*?\}\} | \[Op:.*", re.DOTALL)  # what TensorFlow puts around a message
_NAME = re.compile(r"(?P<split>[A-Za-z0-9]+?)[-._].*")


@dataclass(frozen=True)
class _Facts:
    """What one pass over the labels tells: counts by file, the names, what to take off."""

    counts: dict[str, int]
    names: tuple[str, ...]
    offset: int
    notes: list[str]


@dataclass(frozen=True)
class TFRecord:
    """Picture files in tf.Examples."""

    folder: Path
    options: Options = field(default_factory=Options)
    name: str = "tfrecord"

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether there are TFRecord files by name."""
        return bool(_files(folder))

    def inspect(self) -> DataSet:
        """See base.Source."""
        facts = self._facts
        survey = Survey(self.folder, self.options)
        for part in self.parts():
            survey.add_all(part.split, self.read(part))
        return survey.result(self.name, facts.names, facts.notes, facts.offset)

    def parts(self, data: DataSet | None = None) -> Iterator[Part]:  # noqa: ARG002 (base.Source's)
        """See base.Source: a file is a part."""
        for split, files in self._splits.items():
            first = 0
            for path in files:
                count = self._facts.counts[path.name]
                yield Part(split, first, count, (path.name, self._facts.offset))
                first += count

    def read(self, part: Part, at: NDArray[np.int64] | None = None) -> Iterator[Pictures]:
        """See base.Source."""
        wanted = None if at is None else set(at.tolist())
        name, offset = part.what
        yield from in_batches(self._pictures(name, offset, wanted))

    def _pictures(
        self, name: str, offset: int, wanted: set[int] | None
    ) -> Iterator[tuple[bytes, int, str, int]]:
        path = self.folder / name
        for place, (image, label, _) in enumerate(_examples(path)):
            if wanted is None or place in wanted:
                yield image, label - offset, f"{name}#{place}", place

    @cached_property
    def _splits(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        files = _files(self.folder)
        for path in files:
            match = _NAME.fullmatch(path.name)
            split = SPLIT_NAMES.get(match["split"].lower()) if match else None
            if split is None and len(files) > 1:
                raise SourceError(path, "its name begins with no split: train-…, validation-… or test-…")
            found.setdefault(split or features.TRAIN, []).append(path)
        if features.TRAIN not in found:
            raise SourceError(self.folder, "there is no TFRecord file whose name begins with train")
        return {split: found[split] for split in SPLITS if split in found}

    @cached_property
    def _facts(self) -> _Facts:
        counts: dict[str, int] = {}
        names: dict[int, str] = {}
        least: int | None = None
        for path in (path for files in self._splits.values() for path in files):
            counts[path.name] = 0
            for place, (_, label, text) in enumerate(_examples(path)):
                counts[path.name] += 1
                least = label if least is None else min(least, label)
                if text and names.setdefault(label, text) != text:
                    raise SourceError(
                        path, f"record {place}: label {label} is {text!r} here, {names[label]!r} elsewhere"
                    )
        offset, notes = offset_of(least or 0, self.options)
        highest = max(names, default=-1)
        by_label = tuple(names.get(label, str(label)) for label in range(offset, highest + 1))
        return _Facts(counts, by_label, offset, notes)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [
        path
        for path in folder.iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and (
            path.suffix in (".tfrecord", ".tfrecords", ".tfrec")
            or re.fullmatch(r".*(\.tfrecords?)?-\d+-of-\d+", path.name)
        )
    ]
    return sorted(found)


def _examples(path: Path) -> Iterator[tuple[bytes, int, str]]:
    """Image, label and text of every record."""
    import tensorflow as tf  # seconds, which only this source needs

    place = 0
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            images, labels = feature[ENCODED].bytes_list.value, feature[LABEL].int64_list.value
            texts = feature[TEXT].bytes_list.value
            if len(images) != 1 or len(labels) != 1:
                missing = ENCODED if len(images) != 1 else LABEL
                raise SourceError(path, f"record {place}: not exactly one {missing}")
            yield images[0], labels[0], texts[0].decode("utf-8", "replace") if texts else ""
            place += 1
    except tf.errors.OpError as error:
        raise SourceError(path, f"record {place}: {_FRAME.sub('', error.message)}") from None
    except DecodeError as error:
        raise SourceError(path, f"record {place}: no tf.Example: {error}") from None
