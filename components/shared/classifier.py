"""A model as a function from images to probabilities: the one way in which nodes and commands ask one."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from tensorflow.core.protobuf import saved_model_pb2

from components.shared import model_store, tensorflow_errors
from components.shared.errors import InputError
from trainer import features
from trainer.features import ImageShape

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


def image_shape(model: Path) -> ImageShape:
    """The shape of the images that a SavedModel takes.

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
            _, *shape = [dim.size for dim in inputs[features.IMAGE].tensor_shape.dim] or [0]
            if len(shape) in (2, 3) and min(shape) > 0:
                return ImageShape(*shape)
    raise ModelError(
        f"{model}: none of this pipeline's models: it has no signature {features.SIGNATURE_PIXELS!r} with "
        f"an input {features.IMAGE!r} of [N, height, width] or [N, height, width, channels]"
    )


def batch_size(height: int, width: int) -> int:
    """How many images to put into one call."""
    return max(1, min(_BATCH, _PIXELS // max(1, height * width)))


class Classifier:
    """A SavedModel; the class that it gives an image is the one with the highest probability.

    Attributes:
        signatures: its functions, by name; they work for as long as this object is there.
    """

    def __init__(self, folder: str) -> None:
        """Load it.

        Raises:
            ModelError: where it cannot be loaded.
        """
        try:
            # The object keeps the variables of its signatures alive.
            self._model = tf.saved_model.load(folder)
            self.signatures: dict[str, Any] = dict(self._model.signatures)
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

    def of_files(self, files: Sequence[bytes]) -> tuple[NDArray[np.float32], dict[int, str]]:
        """What it says of picture files, and why it says nothing of some.

        Returns:
            Probabilities float32 [k, C] of those that it can read, in order; and by the places of the
            others the reason, one line each.

        Raises:
            ModelError: where it takes no picture files.
        """
        try:
            return self._of_files(files), {}
        except tf.errors.InvalidArgumentError:
            pass
        found: list[NDArray[np.float32]] = []
        errors: dict[int, str] = {}
        for place, file in enumerate(files):
            try:
                found.append(self._of_files([file]))
            except tf.errors.InvalidArgumentError as error:
                errors[place] = tensorflow_errors.reason(error.message)
        return np.concatenate(found) if found else np.empty((0, 0), np.float32), errors

    def _of_files(self, files: Sequence[bytes]) -> NDArray[np.float32]:
        signature = self._signature(features.SIGNATURE_IMAGE_BYTES)
        outputs = signature(**{features.IMAGE_BYTES: tf.constant(list(files), tf.string)})
        probabilities: NDArray[np.float32] = outputs[features.PROBABILITIES].numpy()
        return probabilities

    @property
    def can_decode(self) -> bool:
        """Whether it says what it makes of picture files."""
        return features.SIGNATURE_DECODE in self.signatures

    def decoded(self, files: Sequence[bytes]) -> NDArray[np.uint8]:
        """What the network gets of picture files: uint8 [N, H, W], with colours [N, H, W, C].

        Raises:
            ModelError: where it cannot say, or a file is no picture.
        """
        signature = self._signature(features.SIGNATURE_DECODE)
        try:
            outputs = signature(**{features.IMAGE_BYTES: tf.constant(list(files), tf.string)})
        except tf.errors.InvalidArgumentError as error:
            raise ModelError(tensorflow_errors.reason(error.message)) from None
        images: NDArray[np.uint8] = outputs[features.IMAGE].numpy()
        return images

    def class_names(self) -> list[str]:
        """By label, as `decode` says them; none where the model has no such signature."""
        if not self.can_decode:
            return []
        shape = (
            self.signatures[features.SIGNATURE_PIXELS].structured_input_signature[1][features.IMAGE].shape
        )
        blank = tf.io.encode_png(tf.zeros([*shape[1:3], shape[3] if len(shape) == 4 else 1], tf.uint8))
        outputs = self.signatures[features.SIGNATURE_DECODE](**{features.IMAGE_BYTES: blank[None]})
        return [name.decode() for name in outputs[features.NAMES].numpy()[0]]

    def _signature(self, name: str) -> Callable[..., dict[str, tf.Tensor]]:
        if name not in self.signatures:
            raise ModelError(f"it cannot be asked: it has no signature {name!r}")
        found: Callable[..., dict[str, tf.Tensor]] = self.signatures[name]
        return found

    def _ask(self, signature: str, name: str, value: tf.Tensor) -> NDArray[np.float32]:
        asked = self._signature(signature)
        try:
            answer: NDArray[np.float32] = asked(**{name: value})[features.PROBABILITIES].numpy()
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
