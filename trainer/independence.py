"""Finds out whether the rows of a batch depend on each other, and notes the signatures where they do not.

A server may answer the requests of several clients in one run of the network only where no row's answer
depends on its company. Most networks are such, but a model function may do what it likes: so it is asked
about the same images alone and in batches of others, and so is each of its own export outputs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from trainer import features, warmup
from trainer.features import ImageInput

FILE = "assets.extra/independent_rows.json"
COMPANY = 5  # images in the larger batches
RTOL, ATOL = 1e-4, 1e-5  # kernels round differently for batches of different sizes

# What decodes one picture at a time, in front of the network that `pixels` asks, or of none.
_LIKE_PIXELS = (
    features.SIGNATURE_IMAGE_BYTES,
    features.SIGNATURE_DECODE,
    features.SIGNATURE_FLOATS,
    features.SIGNATURE_EXAMPLES,
)


def write(
    model_dir: str,
    signatures: Mapping[str, tf.types.experimental.ConcreteFunction],
    images: ImageInput,
) -> None:
    """Write the names of the signatures whose rows are independent.

    Beside them stands the SHA-256 of `saved_model.pb`, so that the file counts for no other model.

    Args:
        model_dir: folder of the SavedModel.
        signatures: what was exported.
        images: what the model reads.
    """
    inputs = warmup.noise(COMPANY, images)
    examples = inputs[features.SIGNATURE_EXAMPLES]  # what a model function's own export outputs take
    found = {
        name: are_independent(function, inputs.get(name, examples)[1])
        for name, function in signatures.items()
        if name not in _LIKE_PIXELS
    }
    alike = found[features.SIGNATURE_PIXELS]
    independent = [
        name for name in signatures if found.get(name, alike or name == features.SIGNATURE_DECODE)
    ]
    with tf.io.gfile.GFile(f"{model_dir}/saved_model.pb", "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    path = f"{model_dir}/{FILE}"
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps({"saved_model_sha256": digest, "signatures": independent}))


def are_independent(function: tf.types.experimental.ConcreteFunction, rows: np.ndarray) -> bool:
    """Whether a signature answers each row the same, alone, among others, and among the same in reverse.

    Args:
        function: one input, outputs by name.
        rows: [N, ...], all different.
    """

    def answers(batch: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in function(tf.constant(batch)).items()}

    together, reverse = answers(rows), answers(rows[::-1])
    for at in range(len(rows)):
        alone = answers(rows[at : at + 1])
        for name, value in alone.items():
            for batch, place in ((together, at), (reverse, len(rows) - 1 - at)):
                if batch[name].shape[:1] != (len(rows),) or not _same(batch[name][place], value[0]):
                    return False
    return True


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    if one.dtype.kind == "f":
        return bool(np.allclose(one, other, RTOL, ATOL))
    return bool(np.array_equal(one, other))
