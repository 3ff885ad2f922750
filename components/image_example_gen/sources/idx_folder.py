"""A folder of IDX files: MNIST and all that follow it, EMNIST's and QMNIST's names included.

`[<name>-]train-images[-<number>][-.]idx3-ubyte[.gz]` and the labels next to it; `t10k` and `test` are the
test split, `validation` the other one. Several pairs of a split differ in their numbers. EMNIST's mapping
of labels to characters names the classes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.image_example_gen.sources import arrays, idx, idx_pairs
from components.image_example_gen.sources.base import (
    BATCH,
    PART,
    SPLIT_NAMES,
    SPLITS,
    DataSet,
    Options,
    Part,
    Pictures,
    SourceError,
)
from components.image_example_gen.sources.survey import class_names, offset_of, out_of_range, sum_of
from trainer import features

_IMAGES = re.compile(
    r"(?P<stem>(?:(?P<name>.+)-)?(?P<split>train|t10k|test|validation|valid|val))-images"
    r"(?P<number>[-.]\d+)?[-.]idx(?P<rank>[34])-ubyte(?P<gz>\.gz)?"
)
_LABELS = ("idx1-ubyte", "idx2-int", "idx1-int")
_MAPPING = "*-mapping.txt"


@dataclass(frozen=True)
class _Files:
    """A pair of files."""

    split: str
    images: Path
    labels: Path


@dataclass(frozen=True)
class IdxFolder:
    """Pairs of IDX files in one folder."""

    folder: Path
    options: Options = field(default_factory=Options)
    name: str = "idx"

    @staticmethod
    def fits(folder: Path) -> bool:
        """Whether a file is named as IDX images are."""
        return any(_IMAGES.fullmatch(path.name) for path in folder.iterdir())

    def inspect(self) -> DataSet:
        """See base.Source."""
        given = self.options.num_classes or None
        first = self._pairs[0]
        pairs: list[idx_pairs.Pair] = []
        size = None
        for files in self._pairs:
            pairs.append(idx_pairs.inspect_pair(files.images, files.labels, size))
            size = pairs[0].shape[1:]
        train = _joined([p for p, f in zip(pairs, self._pairs, strict=True) if f.split == features.TRAIN])
        present = np.flatnonzero(sum_of(pair.counts for pair in pairs))
        least = int(present[0])
        offset, notes = offset_of(least, self.options)
        if least < offset:
            raise SourceError(first.labels, f"label {least} is below data.label_offset = {offset}")
        classes = given or idx_pairs.count_classes(first.labels, train, offset)
        counts = {split: np.zeros(classes, np.int64) for split in SPLITS if split in self._splits}
        for files, pair in zip(self._pairs, pairs, strict=True):
            beyond = np.flatnonzero(pair.counts[offset + classes :])
            if len(beyond):
                label = offset + classes + int(beyond[0])
                raise idx.IdxError(
                    files.labels,
                    int(pair.first_offsets[label]),
                    out_of_range(label, present, classes, offset, self.options),
                )
            found = pair.counts[offset : offset + classes]
            counts[files.split][: len(found)] += found
        total = sum(counts.values(), np.zeros(classes, np.int64))
        if (total > 0).sum() < 2:
            raise SourceError(self.folder, "fewer than two classes: a classifier needs two or more")
        names = class_names(self.options.class_names or self._names(offset), classes, offset)
        absent = [names[at] for at in np.flatnonzero(total == 0)]
        if absent:
            notes = [*notes, f"no example of class {', '.join(absent)} in any split"]
        height, width, channels = self._shape(pairs[0].shape[1:])
        return DataSet(
            source=self.name,
            counts={split: tuple(of_split.tolist()) for split, of_split in counts.items()},
            class_names=names,
            least=(height, width),
            largest=(height, width),
            channels=channels,
            encoded=False,
            fingerprint=hashlib.sha256(b"".join(pair.digests for pair in pairs)).hexdigest(),
            notes=tuple(notes),
            label_offset=offset,
        )

    def parts(self, data: DataSet) -> Iterator[Part]:
        """See base.Source: a gzipped file can only be read as a whole."""
        firsts = dict.fromkeys(SPLITS, 0)
        for files in self._pairs:
            with (
                idx.IdxReader(files.images, 3, 4) as images,
                idx.IdxReader(files.labels, 1, 2, labels=True) as labels,
            ):
                count = images.shape[0]
                step = count if images.is_gzipped or labels.is_gzipped else PART
            for begin in range(0, count, step):
                some = min(step, count - begin)
                what = (
                    files.images.name,
                    files.labels.name,
                    begin,
                    data.label_offset,
                    data.num_classes + data.label_offset,
                )
                yield Part(files.split, firsts[files.split] + begin, some, what)
            firsts[files.split] += count

    def read(self, part: Part, at: NDArray[np.int64] | None = None) -> Iterator[Pictures]:
        """See base.Source."""
        images_name, labels_name, begin, offset, limit = part.what
        name = images_name.removesuffix(".gz")
        place = 0
        for images, labels in idx_pairs.stream(
            self.folder / images_name,
            self.folder / labels_name,
            BATCH,
            limit,
            range(begin, begin + part.count),
        ):
            pixels = images if images.ndim == 4 else images[..., None]
            pictures = arrays.to_pictures(
                pixels,
                labels.astype(np.int64) - offset,
                name,
                begin + place,
                place,
                self.options.orient,
                at,
            )
            place += len(labels)
            if len(pictures):
                yield pictures

    def _shape(self, size: tuple[int, ...]) -> tuple[int, int, int]:
        return arrays.oriented_shape((*size, 1)[:3], self.options.orient)

    @cached_property
    def _splits(self) -> set[str]:
        return {files.split for files in self._pairs}

    @cached_property
    def _pairs(self) -> list[_Files]:
        """By split and number; of a file and its gzipped self the first counts."""
        if not self.folder.is_dir():
            raise SourceError(self.folder, "there is no such folder")
        found: dict[tuple[str, str], _Files] = {}
        names: set[str] = set()
        for path in sorted(self.folder.iterdir()):
            match = _IMAGES.fullmatch(path.name)
            if not match:
                continue
            split, number = SPLIT_NAMES[match["split"]], match["number"] or ""
            names.add(match["name"] or "")
            if (split, number) not in found:
                labels = _labels_of(self.folder, match)
                found[split, number] = _Files(split, path, labels)
        if len(names) > 1:
            listed = ", ".join(repr(name) for name in sorted(names))
            raise SourceError(self.folder, f"files of several data sets: {listed}; move the others away")
        if features.TRAIN not in {split for split, _ in found}:
            # In the words of the four files that most data sets have.
            idx.find_files(self.folder)
        return [found[key] for key in sorted(found, key=lambda key: (SPLITS.index(key[0]), key[1]))]

    def _names(self, offset: int) -> list[str]:
        """EMNIST's characters; nothing where there is no such file."""
        files = sorted(self.folder.glob(_MAPPING))
        if len(files) != 1:
            return []
        try:
            rows = [line.split() for line in files[0].read_text("ascii").splitlines() if line.strip()]
            characters = {int(row[0]) - offset: "".join(chr(int(code)) for code in row[1:]) for row in rows}
            return [characters[label] for label in range(len(characters))]
        except (ValueError, KeyError, OverflowError, OSError) as error:
            raise SourceError(files[0], f"no mapping of labels to characters: {error}") from None


def _labels_of(folder: Path, match: re.Match[str]) -> Path:
    number = match["number"] or ""
    names = [
        f"{match['stem']}-labels{number}{separator}{kind}{suffix}"
        for suffix in ("", ".gz")
        for kind in _LABELS
        for separator in "-."
    ]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise idx.IdxError(folder, None, f"{names[0]} is missing (looked for {', '.join(names)})")


def _joined(pairs: list[idx_pairs.Pair]) -> idx_pairs.Pair:
    """Counts of several pairs together."""
    if len(pairs) == 1:
        return pairs[0]
    size = max(len(pair.counts) for pair in pairs)
    counts = sum((np.pad(p.counts, (0, size - len(p.counts))) for p in pairs), np.zeros(size, np.int64))
    return idx_pairs.Pair(pairs[0].shape, b"", counts, np.full(size, 4, np.int64))
