"""The LiteRT model (TFLite) next to a SavedModel, as a function from images to probabilities."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.shared.classifier import ModelError, batch_size
from trainer import features

_TIMED = 20  # calls with one image

# TensorFlow points to another package, in each call.
warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated", UserWarning)


class LiteModel:
    """A `model.tflite` in its interpreter, with one thread, as on a small device."""

    def __init__(self, file: Path) -> None:
        """Load it.

        Raises:
            ModelError: where it cannot be loaded.
        """
        try:
            self._interpreter = tf.lite.Interpreter(model_path=str(file), num_threads=1)
            self._runner = self._interpreter.get_signature_runner()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{file.name} cannot be loaded: {error}") from error

    def of_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 [N, C] from uint8 [N, H, W], or with colours [N, H, W, 3]; N > 0.

        Raises:
            ModelError: where it takes no such images.
        """
        if images.ndim == 3:
            images = images[..., None]
        size = batch_size(*images.shape[1:3])
        return np.concatenate(
            [self._ask(images[start : start + size]) for start in range(0, len(images), size)]
        )

    def latency_ms(self, image: NDArray[np.uint8]) -> float:
        """The median time of an answer to one image, uint8 [H, W] or [H, W, 3]."""
        taken = []
        for _ in range(_TIMED):
            began = time.perf_counter()
            self.of_images(image[None])
            taken.append(time.perf_counter() - began)
        return float(np.median(taken)) * 1000

    def _ask(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        floats = images.astype(np.float32) / 255
        try:
            answers = self._runner(**{features.IMAGE: floats})
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{features.LITE_FILE} takes no such images: {error}") from error
        found: NDArray[np.float32] = answers[features.PROBABILITIES]
        return found


def find(folder: str | Path) -> Path | None:
    """The LiteRT model next to a SavedModel, if there is one."""
    file = Path(folder, features.LITE_FILE)
    return file if file.is_file() else None
