"""A few images that the model was not trained on, for the page of its server.

`mnist serve` shows what `assets.extra/samples.json` of a model holds; other servers leave it alone.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import features

SAMPLES_FILE = "assets.extra/samples.json"
PER_CLASS = 3
MAX_SAMPLES = 30
MAX_READ = 2000  # examples that are looked at
MAX_PIXELS = 64 * 64  # of an image: the page draws small grey ones


def write(model_dir: str, batches: tf.data.Dataset) -> None:
    """Write the first PER_CLASS images of each class, in the order of their classes; none of large or
    coloured images.

    Args:
        model_dir: folder of the SavedModel.
        batches: ({"image": float32 [N, H, W, C] in [0, 1]}, int64 [N]).
    """
    chosen: dict[int, list[dict[str, Any]]] = {}
    height = width = read = 0
    for inputs, labels in batches.as_numpy_iterator():
        images = inputs[features.IMAGE]
        _, height, width, channels = images.shape
        if channels != 1 or height * width > MAX_PIXELS:
            return
        for image, label in zip(images, labels.tolist(), strict=True):
            of_class = chosen.setdefault(label, [])
            if len(of_class) < PER_CLASS:
                pixels = np.rint(image * 255).astype(np.uint8).tobytes()
                of_class.append({"label": label, "pixels": base64.b64encode(pixels).decode()})
        read += len(labels)
        if read >= MAX_READ:
            break
    samples = [sample for label in sorted(chosen) for sample in chosen[label]][:MAX_SAMPLES]
    path = f"{model_dir}/{SAMPLES_FILE}"
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps({"height": height, "width": width, "samples": samples}))
