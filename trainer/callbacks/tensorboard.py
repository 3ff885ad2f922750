"""What TensorBoard shows of a run in addition to Keras's own curves."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.callbacks.best_weights import BestWeights
from trainer.callbacks.progress import Progress

_PREVIEW_IMAGES = 16
_CELL_PIXELS = 16  # of the confusion matrix


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's curves of loss, accuracy and learning rate; speed, augmented images, confusion matrix."""

    def __init__(
        self, directory: str, progress: Progress, best: BestWeights, preview: tf.Tensor | None
    ) -> None:
        """Make the callback.

        Args:
            directory: where TensorBoard's files go.
            progress: knows the speed.
            best: has the confusion matrix; must come before this callback.
            preview: augmented training images, float32 [N, H, W, 1] in [0, 1]; None: show none.
        """
        super().__init__(directory, write_graph=False, profile_batch=0)
        self._progress, self._best, self._preview = progress, best, preview
        self._epoch = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Show some of the images as the network gets them."""
        super().on_train_begin(logs)
        if self._preview is not None:
            with self._train_writer.as_default():
                images = tf.clip_by_value(self._preview, 0, 1)
                tf.summary.image("augmented", images, step=0, max_outputs=_PREVIEW_IMAGES)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remember the epoch for the evaluation in it."""
        super().on_epoch_begin(epoch, logs)
        self._epoch = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the speed."""
        super().on_epoch_end(epoch, logs)
        with self._train_writer.as_default():
            tf.summary.scalar("images_per_s", self._progress.images_per_s, step=epoch)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Draw the confusion matrix of the validation split."""
        super().on_test_end(logs)
        if self._best.confusion is None:
            return
        counts = self._best.confusion.astype(np.float64)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        # Its square root: single mistakes would be as black as none.
        picture = np.kron(np.sqrt(shares), np.ones((_CELL_PIXELS, _CELL_PIXELS)))
        with self._val_writer.as_default():
            tf.summary.image("confusion", picture[None, :, :, None], step=self._epoch)
