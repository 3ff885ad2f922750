"""What a split looks like in a few numbers: its labels, and simple facts of its images.

Facts are for comparing (splits with each other, a data set with the one before it, requests with training),
never for training: no example carries them. They are NumPy alone, so anything may compute them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

BINS = 256
INK = 127  # a pixel above this grey level is ink
MEAN_INTENSITY = "mean_intensity"  # of 255
INK_FRACTION = "ink_fraction"  # share of the pixels that are ink
CENTRE_ROW, CENTRE_COLUMN = "centre_row", "centre_column"  # centre of mass, of the image's side
IMAGE_FACTS = (MEAN_INTENSITY, INK_FRACTION, CENTRE_ROW, CENTRE_COLUMN)
CHANNEL_MEANS = ("mean_red", "mean_green", "mean_blue")  # of 255
SHARPNESS = "sharpness"  # mean difference of neighbouring pixels, of a quarter of 255
COLOUR_FACTS = (*CHANNEL_MEANS, SHARPNESS)

Histogram = NDArray[np.int64]


@dataclass(frozen=True)
class SplitFacts:
    """A split in numbers.

    Attributes:
        examples: how many there are.
        labels: how many of each class, [C].
        bad_labels: how many labels are of no class, or missing.
        bad_images: how many images are not of the announced size, or missing.
        images: of each fact, how many images have it in each of BINS equal bins from 0 to 1.
    """

    examples: int
    labels: tuple[int, ...]
    bad_labels: int
    bad_images: int
    images: Mapping[str, tuple[int, ...]]

    def __add__(self, other: Self) -> Self:
        """Both."""
        return type(self)(
            examples=self.examples + other.examples,
            labels=_sum(self.labels, other.labels),
            bad_labels=self.bad_labels + other.bad_labels,
            bad_images=self.bad_images + other.bad_images,
            images={name: _sum(counts, other.images[name]) for name, counts in self.images.items()},
        )

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """What `as_json` made; raises KeyError and TypeError for anything else."""
        return cls(
            examples=int(values["examples"]),
            labels=tuple(values["labels"]),
            bad_labels=int(values["bad_labels"]),
            bad_images=int(values["bad_images"]),
            images={
                **{name: tuple(values["images"][name]) for name in IMAGE_FACTS},
                **{name: tuple(counts) for name, counts in values["images"].items()},
            },
        )

    def as_json(self) -> dict[str, Any]:
        """For json.dumps."""
        return asdict(self)


def _sum(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def fact_names(colour: bool) -> tuple[str, ...]:
    """What image_facts gives of images with or without colours."""
    return (*IMAGE_FACTS, *COLOUR_FACTS) if colour else IMAGE_FACTS


def image_facts(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """The facts of each image, every one between 0 and 1.

    Args:
        images: uint8 [n, H, W]; with colours [n, H, W, 3], of which the mean counts.

    Returns:
        By name, float32 [n]; with colours COLOUR_FACTS too. The centre of mass of a blank image is the
        middle.
    """
    if images.ndim == 4:
        channels = images.mean(axis=(1, 2), dtype=np.float32) / 255
        grey = images.mean(axis=3, dtype=np.float32)
        return {
            **image_facts(grey),
            **{name: channels[:, at] for at, name in enumerate(CHANNEL_MEANS)},
            SHARPNESS: _sharpness(grey),
        }
    count, height, width = images.shape
    flat = images.reshape(count, height * width)
    rows = np.repeat((np.arange(height, dtype=np.float32) + 0.5) / height, width)
    columns = np.tile((np.arange(width, dtype=np.float32) + 0.5) / width, height)
    # One product for the sum and both first moments.
    total, row, column = (flat.astype(np.float32) @ np.stack([np.ones_like(rows), rows, columns], 1)).T
    blank = total == 0
    mass = np.where(blank, 1, total)
    return {
        MEAN_INTENSITY: total / (255 * height * width),
        INK_FRACTION: (flat > INK).mean(axis=1, dtype=np.float32),
        CENTRE_ROW: np.where(blank, 0.5, row / mass),
        CENTRE_COLUMN: np.where(blank, 0.5, column / mass),
    }


def _sharpness(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """From [n, H, W]: float32 [n]; what is blurred, or scaled up, has less of it."""
    steps = [np.abs(np.diff(grey, axis=axis)).mean(axis=(1, 2), dtype=np.float32) for axis in (1, 2)]
    return np.minimum(sum(steps) / 2 / (255 / 4), np.float32(1))


def image_histograms(images: NDArray[np.uint8]) -> dict[str, Histogram]:
    """How many images have each fact in each bin, from uint8 [n, H, W]: by name, int64 [BINS]."""
    return {name: unit_histogram(values) for name, values in image_facts(images).items()}


def unit_histogram(values: NDArray) -> Histogram:
    """How many values of 0 … 1 fall into each of BINS equal bins: int64 [BINS]."""
    return np.bincount(np.minimum((values * BINS).astype(np.int64), BINS - 1), minlength=BINS)


def median(histogram: Sequence[int] | Histogram) -> float:
    """The middle of the bin that holds the median, 0 … 1, from counts in equal bins."""
    below = np.cumsum(histogram)
    return float((np.searchsorted(below, below[-1] / 2) + 0.5) / len(histogram))


def image_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """BLAKE2b with 64 bits of each image's bytes, the label left out: uint64 [n] from uint8 [n, H, W]."""
    digests = [hashlib.blake2b(image, digest_size=8).digest() for image in images]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


class Collector:
    """Gathers the facts of a split batch by batch."""

    def __init__(self, num_classes: int, colour: bool = False) -> None:
        """Begin with nothing; labels are below `num_classes`, images have colours or not."""
        self._labels = np.zeros(num_classes, np.int64)
        self._images = {name: np.zeros(BINS, np.int64) for name in fact_names(colour)}
        self._examples = self._bad_labels = self._bad_images = 0

    def add(self, images: NDArray[np.uint8], labels: NDArray[np.int64], bad_images: int) -> None:
        """Add examples.

        Args:
            images: uint8 [n, H, W], those of the right size.
            labels: int64 [n + bad_images], of all examples; -1 where there is none.
            bad_images: how many have another image, or none.
        """
        of_a_class = (labels >= 0) & (labels < len(self._labels))
        self._labels += np.bincount(labels[of_a_class], minlength=len(self._labels))
        self._examples += len(labels)
        self._bad_labels += int((~of_a_class).sum())
        self._bad_images += bad_images
        for name, histogram in image_histograms(images).items():
            self._images[name] += histogram

    def facts(self) -> SplitFacts:
        """What was gathered."""
        return SplitFacts(
            examples=self._examples,
            labels=tuple(self._labels.tolist()),
            bad_labels=self._bad_labels,
            bad_images=self._bad_images,
            images={name: tuple(histogram.tolist()) for name, histogram in self._images.items()},
        )
