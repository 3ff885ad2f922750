"""A model as a function from images to probabilities: the one way in which nodes and commands ask one."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
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
_BATCH = 512  # images a call: with more, what a layer makes does not fit into a core's cache
_PIXELS = 1 << 20  # and of large images only as many as have so many pixels together

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
        raise ModelError(f"{folder}: there is no model; a run pushes one, or name another with --model")
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


def batch_size(height: int, width: int) -> int:
    """How many images to put into one call."""
    return max(1, min(_BATCH, _PIXELS // max(1, height * width)))


class Classifier:
    """A SavedModel; the class that it gives an image is the one with the highest probability."""

    def __init__(self, folder: str) -> None:
        """Load it.

        Raises:
            ModelError: where it cannot be loaded.
        """
        try:
            # The object keeps the variables of its signatures alive.
            self._model = tf.saved_model.load(folder)
            self._signatures = dict(self._model.signatures)
        except (KeyError, ValueError, OSError, AttributeError, tf.errors.OpError) as error:
            if is_fault_of_machine(error):
                raise
            raise ModelError(f"it cannot be loaded: {_line(error)}") from error

    def of_examples(self, records: tf.Tensor | Sequence[bytes]) -> NDArray[np.float32]:
        """Probabilities float32 [N, C] from serialized tf.Examples, string [N]; one call.

        Raises:
            ModelError: where it takes no such images.
        """
        return self._ask(
            features.SIGNATURE_EXAMPLES, features.EXAMPLES, tf.convert_to_tensor(records, tf.string)
        )

    def of_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 [N, C] from uint8 [N, H, W], N > 0, in batches.

        Raises:
            ModelError: where it takes no such images.
        """
        size = batch_size(*images.shape[1:3])
        return np.concatenate(
            [
                self._ask(
                    features.SIGNATURE_PIXELS, features.IMAGE, tf.constant(images[start : start + size])
                )
                for start in range(0, len(images), size)
            ]
        )

    def _ask(self, signature: str, name: str, value: tf.Tensor) -> NDArray[np.float32]:
        if signature not in self._signatures:
            raise ModelError(f"it cannot be asked: it has no signature {signature!r}")
        try:
            answer: NDArray[np.float32] = self._signatures[signature](**{name: value})[
                features.PROBABILITIES
            ].numpy()
        except (KeyError, ValueError, TypeError, tf.errors.OpError) as error:
            if is_fault_of_machine(error):
                raise
            raise ModelError(f"it takes no such images: {_line(error)}") from error
        return answer


_loaded: weakref.WeakValueDictionary[str, Classifier] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def load(folder: str | Path) -> Classifier:
    """The classifier in a folder, loaded once a process for as long as it is in use.

    Raises:
        ModelError: where it cannot be loaded.
    """
    with _loading:
        found = _loaded.get(str(folder))
        if found is None:
            found = _loaded[str(folder)] = Classifier(str(folder))
        return found


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
