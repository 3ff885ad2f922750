"""Ask a SavedModel about the test digits through each signature; prints a line of classes for each.

A process of its own, because what is tested is that the model needs nothing but TensorFlow.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

model_dir, data_dir = map(Path, sys.argv[1:])
images = np.frombuffer((data_dir / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(
    -1, 28, 28
)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def example(image: np.ndarray) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()]))
    return tf.train.Example(features=tf.train.Features(feature={"image": feature})).SerializeToString()


signatures = tf.saved_model.load(str(model_dir)).signatures
asked = {
    "pixels": signatures["pixels"](image=tf.constant(images)),
    "examples": signatures["examples"](examples=tf.constant([example(image) for image in images])),
    "serving_default": signatures["serving_default"](
        image_bytes=tf.constant([png(image) for image in images])
    ),
}
for name, outputs in asked.items():
    assert outputs["probabilities"].shape == outputs["logits"].shape == (len(images), 10)
    np.testing.assert_allclose(np.sum(outputs["probabilities"], axis=1), 1, atol=1e-5)
    print(name, *outputs["classes"].numpy())  # noqa: T201
