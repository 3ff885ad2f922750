"""Reads all of a data set once: counts, sizes, colours, contents, and which pictures cannot be read."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.image_example_gen.sources import pictures
from components.image_example_gen.sources.base import (
    MAX_LABEL,
    DataSet,
    Options,
    Pictures,
    Skipped,
    SourceError,
)
from components.image_example_gen.sources.pictures import Header, PictureError

_SHOWN = 5  # of what a note lists
_TASKS = 4  # for each worker, out of a batch


@dataclass
class Survey:
    """Gathers what a data set is, batch by batch.

    Attributes:
        folder: where the data set is, for messages.
        options: what to do at a picture that cannot be read.
        shape: of every image, where they are pixels: [H, W, C]; None where they are picture files.
    """

    folder: Path
    options: Options
    shape: tuple[int, int, int] | None = None
    _counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    _skipped: list[Skipped] = field(default_factory=list)
    _digest: Any = field(default_factory=hashlib.sha256)
    _sizes: list[tuple[int, int]] = field(default_factory=list)
    _channels: int = 1
    _beyond: tuple[str, int] | None = None  # id and label of the first that the settings have no class for

    @property
    def _known(self) -> bool:
        """Whether the pictures were decoded before, and none was found bad."""
        return bool(self.options.checked) and self.options.bad_images == "stop"

    def add_all(self, split: str, batches: Iterable[Pictures]) -> None:
        """Look at the pictures of a split; splits come one after another.

        Raises:
            SourceError: for a picture that cannot be read, where such pictures stop the run.
        """
        # Pillow and hashlib let go of the interpreter while they work.
        workers = os.cpu_count() or 1
        look = _hash if self._known else _check_and_hash
        with ThreadPoolExecutor(workers) as pool:
            for batch in batches:
                if self.shape is not None:
                    self._add(split, batch, [None] * len(batch.images), [_sha256(b"".join(batch.images))])
                    continue
                # A few tasks for each worker: thousands of small ones would take longer than they work.
                some = max(1, math.ceil(len(batch.images) / (_TASKS * workers)))
                tasks = [batch.images[at : at + some] for at in range(0, len(batch.images), some)]
                with warnings.catch_warnings(action="ignore"):  # Pillow's: an odd picture is no news
                    looked = [each for task in pool.map(look, tasks) for each in task]
                self._add(split, batch, [header for header, _ in looked], [digest for _, digest in looked])

    def _add(
        self,
        split: str,
        batch: Pictures,
        checked: Sequence[Header | PictureError | None],
        digests: Sequence[bytes],
    ) -> None:
        good = np.array([not isinstance(each, PictureError) for each in checked], bool)
        for number in np.flatnonzero(~good).tolist():
            if self.options.bad_images == "stop":
                raise SourceError(
                    self.folder / batch.ids[number],
                    f"{checked[number]}; data.bad_images=skip leaves such pictures out",
                )
            self._skipped.append(Skipped(batch.ids[number], str(checked[number])))
        self._digest.update(split.encode() + batch.labels.astype("<i8").tobytes() + b"".join(digests))
        self._count(split, batch, good)
        headers = [each for each in checked if isinstance(each, Header)]
        if headers:
            heights, widths = [h.height for h in headers], [h.width for h in headers]
            ends = [(min(heights), min(widths)), (max(heights), max(widths))]
            self._sizes = _extremes([*self._sizes, *ends])
            self._channels = max(self._channels, max(h.channels for h in headers))

    def _count(self, split: str, batch: Pictures, good: NDArray[np.bool_]) -> None:
        labels = batch.labels
        outside = np.flatnonzero((labels < 0) | (labels >= MAX_LABEL))
        if len(outside):
            at = int(outside[0])
            raise SourceError(
                self.folder / batch.ids[at], f"label {labels[at]} is not in the range 0…{MAX_LABEL - 1}"
            )
        beyond = np.flatnonzero(good & (labels >= (self.options.num_classes or MAX_LABEL)))
        if len(beyond) and self._beyond is None:
            self._beyond = batch.ids[beyond[0]], int(labels[beyond[0]])
        before = self._counts.get(split, np.zeros(0, np.int64))
        self._counts[split] = sum_of([before, np.bincount(labels[good])])

    def result(
        self,
        source: str,
        given_names: Sequence[str] = (),
        notes: Sequence[str] = (),
        label_offset: int = 0,
        fingerprint: str = "",
    ) -> DataSet:
        """What was gathered.

        Args:
            source: its name.
            given_names: of classes, by label; none where the source only has numbers.
            notes: more that a person should know.
            label_offset: what was taken off every label, for the names of numbered classes.
            fingerprint: of the contents, where the source makes its own.

        Raises:
            SourceError: for fewer than two classes, or more than the settings have, a gap between them, or
                too many bad pictures.
        """
        if self._beyond is not None:
            where, label = self._beyond
            present = np.flatnonzero(sum_of(self._counts.values())) + label_offset
            limit = self.options.num_classes
            reason = out_of_range(label + label_offset, present, limit, label_offset, self.options)
            raise SourceError(self.folder / where, reason)
        have = max((len(counts) for counts in self._counts.values()), default=0)
        classes = self.options.num_classes or max(have, len(given_names))
        total = sum_of([np.zeros(classes, np.int64), *self._counts.values()])
        if (total > 0).sum() < 2:
            raise SourceError(
                self.folder,
                f"{int((total > 0).sum())} classes with pictures: a classifier needs two or more",
            )
        self._check_skipped(int(total.sum()))
        absent = np.flatnonzero(total == 0)
        names = class_names(self.options.class_names or given_names, classes, label_offset)
        if len(absent) and not self.options.num_classes and not given_names:
            raise SourceError(
                self.folder,
                f"label {int(np.flatnonzero(total)[-1]) + label_offset} is probably wrong: no example of "
                f"{_listed([names[at] for at in absent])}; if not, set data.num_classes",
            )
        notes = list(notes)
        if len(absent):
            notes.append(f"no example of class {_listed([names[at] for at in absent])} in any split")
        if self._skipped:
            notes.append(
                f"{len(self._skipped)} pictures cannot be read and are left out: "
                + _listed([f"{each.id} ({each.reason})" for each in self._skipped])
            )
        least, largest = self._sizes or ((0, 0), (0, 0))
        channels = self._channels
        if self.shape is not None:
            least = largest = self.shape[:2]
            channels = self.shape[2]
        return DataSet(
            source=source,
            counts={
                split: tuple(np.pad(counts, (0, classes - len(counts))).tolist())
                for split, counts in self._counts.items()
            },
            class_names=names,
            least=least,
            largest=largest,
            channels=channels,
            encoded=self.shape is None,
            fingerprint=fingerprint or self._digest.hexdigest(),
            skipped=tuple(self._skipped),
            notes=tuple(notes),
            label_offset=label_offset,
        )

    def _check_skipped(self, good: int) -> None:
        share = len(self._skipped) / max(good + len(self._skipped), 1)
        if share > self.options.max_bad:
            first = self._skipped[0]
            raise SourceError(
                self.folder,
                f"{len(self._skipped)} pictures ({share:.1%}) cannot be read, more than data.max_bad = "
                f"{self.options.max_bad:.1%}; the first is {first.id}: {first.reason}",
            )


def _check_and_hash(images: Sequence[bytes]) -> list[tuple[Header | PictureError | None, bytes]]:
    """What each picture is, and the hash of its content."""
    return [(_check(content), _sha256(content)) for content in images]


def _hash(images: Sequence[bytes]) -> list[tuple[Header | PictureError | None, bytes]]:
    return [(None, _sha256(content)) for content in images]


def _check(content: bytes) -> Header | PictureError:
    try:
        return pictures.check(content)
    except PictureError as error:
        return error


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _extremes(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    heights, widths = zip(*sizes, strict=True)
    return [(min(heights), min(widths)), (max(heights), max(widths))]


def sum_of(counts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The sum of counts by label, each as long as its highest label."""
    every = list(counts)
    size = max((len(each) for each in every), default=0)
    return sum((np.pad(each, (0, size - len(each))) for each in every), np.zeros(size, np.int64))


def out_of_range(
    label: int, present: NDArray[np.int64], classes: int, offset: int, options: Options
) -> str:
    """Why a label is refused that is of none of the classes.

    Args:
        label: the first such, as the files say.
        present: the labels that the data have, ascending, as the files say.
        classes: how many there may be.
        offset: the lowest label that there may be.
        options: `class_names` and `num_classes`, if one of them says how many.
    """
    least, highest = present[[0, -1]].tolist()
    if options.class_names:
        why = f"data.names has {classes} names"
    elif options.num_classes:
        why = f"data.num_classes = {classes}"
    else:
        why = "no image for training has it"
    from_one = least == offset + 1 and highest - least < classes
    return (
        f"label {label} is not in the range {offset}…{offset + classes - 1}: {why}, the data have "
        f"{highest - least + 1} classes, {least}…{highest}"
        + (f"; data.label_offset={least} makes the first of them the first class" if from_one else "")
    )


def class_names(given: Sequence[str], classes: int, label_offset: int) -> tuple[str, ...]:
    """As many names as classes: those that are given, then numbers as the files have them."""
    numbers = [str(number + label_offset) for number in range(classes)]
    return (*given[:classes], *numbers[len(given) :])


def in_order(folder: Path, found: Sequence[str], options: Options) -> list[str]:
    """What a source calls its classes, by label: in the order of `data.names` where there are such.

    Args:
        folder: of the data set.
        found: what they are called there, in the source's own order: some of the ids, names or places of
            `data.names`, or others, as many as it has.
        options: `class_names` and `class_ids`.

    Raises:
        SourceError: where that says nothing about which is which.
    """
    names = options.class_names
    for known in (options.class_ids, names, [str(label) for label in range(len(names))]):
        if found and set(found) <= set(known) and len(set(known)) == len(known):
            return list(known)
    if names and len(found) != len(names):
        raise SourceError(
            folder,
            f"{len(found)} classes, {_listed(found)}, which are not those of data.names: {len(names)}, "
            f"{_listed(names)}",
        )
    return list(found)


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def offset_of(least: int, options: Options) -> tuple[int, list[str]]:
    """What to take off every label, and a note where that was decided here.

    Args:
        least: the smallest label of the data set.
        options: `label_offset`; and where `num_classes` is given, labels are taken as they are.
    """
    if options.label_offset is not None:
        return options.label_offset, []
    if least == 1 and not options.num_classes:
        return 1, ["labels begin at 1: 1 is taken off each of them (data.label_offset)"]
    return 0, []
