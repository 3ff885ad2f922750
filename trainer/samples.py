"""A few images that the model was not trained on, for the page of its server.

`mnist serve` shows what `assets.extra/samples.json` of a model holds; other servers leave it alone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import features
from trainer.features import ImageInput

SAMPLES_FILE = "assets.extra/samples.json"
PER_CLASS = 3
MAX_SAMPLES = 30
MAX_READ = 2000  # examples that are looked at
MAX_PIXELS = 64 * 64  # of an image: the page draws small ones


def write(model_dir: str, batches: tf.data.Dataset, images: ImageInput, class_names: Sequence[str]) -> None:
    """Write the first PER_CLASS images of each class, in the order of their classes; none of large images.

    Args:
        model_dir: folder of the SavedModel.
        batches: ({"image": float32 [N, H, W, C] in [0, 1]}, int64 [N]).
        images: what the model reads; whether they are digits tells the page whether to draw.
        class_names: by label.
    """
    height, width, channels = images.shape
    small = height * width <= MAX_PIXELS
    path = f"{model_dir}/{SAMPLES_FILE}"
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(
            json.dumps(
                {
                    "height": height,
                    "width": width,
                    "channels": channels,
                    "digits": images.fit == features.FIT_CENTER,
                    "samples": _samples(batches, class_names) if small else [],
                }
            )
        )


def _samples(batches: tf.data.Dataset, class_names: Sequence[str]) -> list[dict[str, Any]]:
    chosen: dict[int, list[dict[str, Any]]] = {}
    read = 0
    for inputs, labels in batches.as_numpy_iterator():
        for image, label in zip(inputs[features.IMAGE], labels.tolist(), strict=True):
            of_class = chosen.setdefault(label, [])
            if len(of_class) < PER_CLASS:
                pixels = base64.b64encode(np.rint(image * 255).astype(np.uint8).tobytes()).decode()
                of_class.append({"label": label, "name": class_names[label], "pixels": pixels})
        read += len(labels)
        if read >= MAX_READ:
            break
    return [sample for label in sorted(chosen) for sample in chosen[label]][:MAX_SAMPLES]
