"""Digits of the test set for the page to show, as one small JSON document."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from components.image_example_gen.sources import idx

PER_CLASS = 3


def from_test_set(folder: Path) -> bytes | None:
    """The first PER_CLASS test examples of each class, in the order of their classes.

    Args:
        folder: holds the four IDX files.

    Returns:
        JSON: height, width, and samples with index, label and pixels (uint8, row-major, in base64); None
        where the folder does not hold a data set.
    """
    try:
        files = idx.find_files(folder)
        chosen: dict[int, list[dict[str, Any]]] = {}
        height = width = first = 0
        for images, labels in idx.stream(files.test_images, files.test_labels, 1000, None):
            _, height, width = images.shape
            for label in np.unique(labels).tolist():
                of_class = chosen.setdefault(label, [])
                for at in np.flatnonzero(labels == label)[: PER_CLASS - len(of_class)].tolist():
                    pixels = base64.b64encode(images[at].tobytes()).decode()
                    of_class.append({"index": first + at, "label": label, "pixels": pixels})
            first += len(labels)
    except (idx.IdxError, OSError):
        return None
    samples = [sample for label in sorted(chosen) for sample in chosen[label]]
    return orjson.dumps({"height": height, "width": width, "samples": samples})
