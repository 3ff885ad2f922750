"""A pushed model as a folder: which one is meant, what images it takes, and what it says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2

from components.shared import model_store
from components.shared.errors import InputError
from trainer import features

MODEL_FILE = "saved_model.pb"
BATCH = 512  # images a call: more take memory and no less time

# uint8 [n, H, W] to int64 [n] and float32 [n, C]: classes and their probabilities.
Classify = Callable[[NDArray[np.uint8]], tuple[NDArray[np.int64], NDArray[np.float32]]]

# What says nothing of a model, and may be otherwise at the next try.
_OF_MACHINE = (
    MemoryError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
)


class ModelError(InputError):
    """There is no model, or none that can be used: one line for a person."""


def is_fault_of_machine(error: Exception) -> bool:
    """Whether an error came of this machine at this time (memory, disk, rights), and not of the model."""
    # TensorFlow's own OSError, for a folder that is no SavedModel, has no number.
    return isinstance(error, _OF_MACHINE) or (isinstance(error, OSError) and error.errno is not None)


def find(folder: Path) -> Path:
    """The SavedModel that a folder means: itself, or the newest of its version folders.

    Raises:
        ModelError: where there is none.
    """
    if model_store.is_whole(folder):
        return folder
    newest = model_store.newest(folder)
    if newest is None:
        raise ModelError(f"{folder}: there is no model; `mnist run` pushes one, or name it with --model")
    return newest.folder


def image_size(model: Path) -> tuple[int, int]:
    """Height and width of the images that a SavedModel takes, in pixels.

    Raises:
        ModelError: where it is broken, or none of this pipeline's.
    """
    try:
        content = saved_model_pb2.SavedModel.FromString((model / MODEL_FILE).read_bytes())
    except DecodeError:
        raise ModelError(f"{model / MODEL_FILE}: broken: not a SavedModel") from None
    for graph in content.meta_graphs:
        inputs = graph.signature_def[features.SIGNATURE_PIXELS].inputs
        if features.IMAGE in inputs:
            shape = [dim.size for dim in inputs[features.IMAGE].tensor_shape.dim]
            if len(shape) == 3 and shape[1] > 0 and shape[2] > 0:
                return shape[1], shape[2]
    raise ModelError(
        f"{model}: none of this pipeline's models: it has no signature {features.SIGNATURE_PIXELS!r} with "
        f"an input {features.IMAGE!r} of [N, height, width]"
    )


def load(model: Path) -> Classify:
    """Load a SavedModel; what comes back calls its signature `pixels` in batches."""
    loaded = tf.saved_model.load(str(model))
    signature = loaded.signatures[features.SIGNATURE_PIXELS]

    def classify(images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        assert loaded  # the signature does not keep the model's variables alive
        answers = [
            signature(**{features.IMAGE: tf.constant(images[first : first + BATCH])})
            for first in range(0, len(images), BATCH)
        ]
        return (
            np.concatenate([answer[features.CLASSES].numpy() for answer in answers]),
            np.concatenate([answer[features.PROBABILITIES].numpy() for answer in answers]),
        )

    return classify
