"""Checkpoints of a run that may be killed, and the search for that of a run that was.

A checkpoint is one file, replaced as a whole: variables of network and optimizer, the step, and what the
run has measured so far. It lies in the model_run artifact of its execution; a later execution of the very
same training, which gets an artifact of its own, finds it there.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.features import CHECKPOINT_FOLDER

SAVE_EVERY_S = 30.0

_FILE = "checkpoint.npz"
_ABOUT = "about"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What a killed run had reached.

    Attributes:
        step: optimizer steps that are done.
        arrays: as they were given to Store.save.
        progress: what the run had measured.
    """

    step: int
    arrays: tuple[np.ndarray, ...]
    progress: Mapping[str, Any]


class Store:
    """The checkpoints of one training run."""

    def __init__(
        self,
        model_run_dir: str,
        identity: str,
        shared_dir: str = "",
        every_s: float = SAVE_EVERY_S,
        every_steps: int | None = None,
    ) -> None:
        """Describe where they are.

        Args:
            model_run_dir: the artifact of this execution.
            identity: equal for runs that compute the same.
            shared_dir: a folder that outlives executions, for platforms where an interrupted execution's
                artifact is lost with its pod; empty: none.
            every_s: the least time between two checkpoints, seconds.
            every_steps: the steps between two, instead.
        """
        self._identity = identity
        self._every_s, self._every_steps = every_s, every_steps
        self._saved_at = time.monotonic()
        if shared_dir:
            self._folder = tf.io.gfile.join(shared_dir, identity)
            self._pattern = tf.io.gfile.join(self._folder, _FILE)
        else:
            self._folder = tf.io.gfile.join(model_run_dir, CHECKPOINT_FOLDER)
            artifacts = model_run_dir.rstrip("/").rpartition("/")[0]
            self._pattern = tf.io.gfile.join(artifacts, "*", CHECKPOINT_FOLDER, _FILE)

    def due(self, step: int) -> bool:
        """Whether it is time for the next one, after `step` steps."""
        if self._every_steps:
            return step % self._every_steps == 0
        return time.monotonic() - self._saved_at >= self._every_s

    def save(self, step: int, arrays: Sequence[np.ndarray], progress: Mapping[str, Any]) -> None:
        """Write a checkpoint in place of the one before; `progress` must be JSON."""
        about = {"identity": self._identity, "step": step, "progress": progress}
        content = io.BytesIO()
        named: dict[str, Any] = {str(position): array for position, array in enumerate(arrays)}
        named[_ABOUT] = np.array(json.dumps(about))
        np.savez(content, **named)
        tf.io.gfile.makedirs(self._folder)
        path = tf.io.gfile.join(self._folder, _FILE)
        with tf.io.gfile.GFile(f"{path}.part", "wb") as file:
            file.write(content.getvalue())
        tf.io.gfile.rename(f"{path}.part", path, overwrite=True)
        self._saved_at = time.monotonic()

    def latest(self) -> Checkpoint | None:
        """The furthest checkpoint of a run like this one, or None."""
        found = [checkpoint for path in tf.io.gfile.glob(self._pattern) if (checkpoint := self._read(path))]
        return max(found, key=lambda checkpoint: checkpoint.step, default=None)

    def remove(self) -> None:
        """Remove all checkpoints of runs like this one: it is over."""
        for path in tf.io.gfile.glob(self._pattern):
            if self._read(path) is not None:
                tf.io.gfile.rmtree(path.rpartition("/")[0])

    def _read(self, path: str) -> Checkpoint | None:
        try:
            with tf.io.gfile.GFile(path, "rb") as file, np.load(io.BytesIO(file.read())) as content:
                about = json.loads(str(content[_ABOUT]))
                if about["identity"] != self._identity:
                    return None
                arrays = tuple(content[str(position)] for position in range(len(content.files) - 1))
        except Exception as error:
            # Whatever is wrong with it, the run can still start from the beginning.
            _LOG.warning("%s cannot be read and is left alone: %s", path, error)
            return None
        return Checkpoint(about["step"], arrays, about["progress"])
