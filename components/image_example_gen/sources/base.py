"""What every source of labelled images has in common: the protocol, and what a data set is.

A source reads one layout of files. It is asked three things: what the data set is (`inspect`), what can be
read at the same time (`parts`), and the pictures of one part (`read`). Sources are small frozen objects:
Beam pickles them to its workers. Nothing here imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from components.shared.errors import InputError
from trainer import features

SPLITS = (features.TRAIN, features.VALIDATION, features.TEST)
SPLIT_NAMES = {
    "train": features.TRAIN,
    "training": features.TRAIN,
    "validation": features.VALIDATION,
    "valid": features.VALIDATION,
    "val": features.VALIDATION,
    "dev": features.VALIDATION,
    "test": features.TEST,
    "testing": features.TEST,
    "t10k": features.TEST,
}
"""What folders, files and columns call the splits."""

BATCH = 2048  # pictures that a source gives at once, at most
BATCH_BYTES = 1 << 24  # of them together, about
PART = 1 << 14  # pictures that one worker reads, about
MAX_LABEL = 1 << 16  # more classes than that are a mistake

Orient = Literal["", "transpose", "rotate90", "rotate180", "rotate270", "mirror"]
BadImages = Literal["stop", "skip"]


class SourceError(InputError):
    """A data set is not what it should be.

    Attributes:
        path: the file or folder.
        reason: what is wrong, and where in it.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = Path(path), reason

    def __reduce__(self) -> tuple[type[SourceError], tuple[Any, ...]]:
        # Beam's runners hand exceptions from process to process.
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class Options:
    """How a source is to be read: the settings `data.*` that change what examples say.

    Attributes:
        num_classes: labels must be below it; 0: as the data say.
        label_offset: what is taken off every label of a source whose labels are numbers; None: 1 where the
            labels begin at 1, otherwise 0.
        orient: how arrays of pixels are turned: EMNIST's images are transposed.
        bad_images: what happens at a picture that cannot be decoded.
        max_bad: above this share of such pictures `skip` stops too.
        path_column, label_column, split_column: of a manifest; empty: found by the usual names.
        class_names: by label, in place of what the source calls its classes; empty: as the source does.
        class_ids: what the source may call them.
        checked: the fingerprint of contents that were inspected before with the same options; where bad
            pictures stop, these are not decoded again. Whoever gives it compares it with what is found.
    """

    num_classes: int = 0
    label_offset: int | None = None
    orient: Orient = ""
    bad_images: BadImages = "stop"
    max_bad: float = 0.01
    path_column: str = ""
    label_column: str = ""
    split_column: str = ""
    class_names: Sequence[str] = ()
    class_ids: Sequence[str] = ()
    checked: str = ""


@dataclass(frozen=True)
class Skipped:
    """A picture that is left out: its id, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class DataSet:
    """What a data set is, after all of it was read and found right.

    Attributes:
        source: name of the source, as `data.source` takes it.
        counts: examples of each class by split, [C] each, of the splits that the source has; without those
            that are skipped.
        class_names: by label, [C].
        least: the smallest height and the smallest width, in pixels, upright.
        largest: the largest height and the largest width.
        channels: 1 where every picture is grey, otherwise 3. Of picture files that were not decoded
            (`Options.checked`) the sizes are 0 and this is 1.
        encoded: whether an example's image is a picture file; otherwise it is pixels, uint8 [H, W, C].
        fingerprint: SHA-256 (hex) over all contents and labels.
        skipped: pictures that could not be read.
        notes: what a person should know, a line each.
        label_offset: what was taken off every label.
    """

    source: str
    counts: Mapping[str, tuple[int, ...]]
    class_names: tuple[str, ...]
    least: tuple[int, int]
    largest: tuple[int, int]
    channels: int
    encoded: bool
    fingerprint: str
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    label_offset: int = 0

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def examples(self) -> dict[str, int]:
        """How many there are, by split of the source."""
        return {split: sum(counts) for split, counts in self.counts.items()}

    @property
    def absent(self) -> tuple[int, ...]:
        """Labels that no split has: announced, and no gate is about them."""
        return tuple(
            label
            for label in range(self.num_classes)
            if not any(of_split[label] for of_split in self.counts.values())
        )

    @property
    def one_size(self) -> bool:
        """Whether all pictures have the same size."""
        return self.least == self.largest


@dataclass(frozen=True)
class Part:
    """What one worker reads.

    Attributes:
        split: of the source.
        first: the place of its first picture among all of the split.
        count: pictures in it.
        what: what `read` needs to know, of the source's own making.
    """

    split: str
    first: int
    count: int
    what: Any


@dataclass(frozen=True)
class Pictures:
    """Some pictures of a part, in its order.

    Attributes:
        images: picture files, or uint8 [H, W, C] row-major, as bytes.
        labels: int64 [n], from 0.
        ids: file and place within the data set's folder.
        places: int64 [n], within the part.
    """

    images: Sequence[bytes]
    labels: NDArray[np.int64]
    ids: Sequence[str]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


class Source(Protocol):
    """One layout of files that hold labelled images."""

    @property
    def name(self) -> str:
        """As `data.source` takes it."""

    def inspect(self) -> DataSet:
        """Read everything once and check it.

        Raises:
            SourceError: for the first fault, one line with file and place.
        """

    def parts(self, data: DataSet) -> Iterator[Part]:
        """What can be read at the same time, split after split, in a stable order."""

    def read(self, part: Part, at: NDArray[np.int64] | None = None) -> Iterator[Pictures]:
        """The pictures of a part.

        Args:
            part: one of `parts`.
            at: only those at these places within the part, ascending; None: all.

        Raises:
            SourceError: where a file is not any more what it was.
        """


@dataclass
class Gathered:
    """Pictures on their way into batches of bounded size."""

    images: list[bytes] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, image: bytes, label: int, picture_id: str, place: int) -> bool:
        """Put one in; true where the batch is full."""
        self.images.append(image)
        self.labels.append(label)
        self.ids.append(picture_id)
        self.places.append(place)
        self.size_bytes += len(image)
        return len(self.images) >= BATCH or self.size_bytes >= BATCH_BYTES

    def take(self) -> Pictures:
        """What was put in since the last time."""
        taken = Pictures(
            self.images, np.array(self.labels, np.int64), self.ids, np.array(self.places, np.int64)
        )
        self.images, self.labels, self.ids, self.places, self.size_bytes = [], [], [], [], 0
        return taken


def in_batches(pictures: Iterator[tuple[bytes, int, str, int]]) -> Iterator[Pictures]:
    """Join pictures (image, label, id, place) to batches of bounded size."""
    gathered = Gathered()
    for picture in pictures:
        if gathered.add(*picture):
            yield gathered.take()
    if gathered.images:
        yield gathered.take()


def oriented(images: NDArray[np.uint8], orient: Orient) -> NDArray[np.uint8]:
    """Turn uint8 [n, H, W, C]; angles are clockwise."""
    if not orient:
        return images
    if orient == "transpose":
        return images.transpose(0, 2, 1, 3)
    if orient == "mirror":
        return images[:, :, ::-1]
    return np.rot90(images, -int(orient.removeprefix("rotate")) // 90, axes=(1, 2))


def relative(path: Path, folder: Path) -> str:
    """A path as ids have it."""
    return path.relative_to(folder).as_posix()
