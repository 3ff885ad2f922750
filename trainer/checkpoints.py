"""Checkpoints of a run that may be killed, and the search for that of a run that was.

A checkpoint is one file: variables of network and optimizer, the step, and what the run has measured so
far. It lies in the model_run artifact of its execution; a later execution of the very same training, which
gets an artifact of its own, finds it there. When a run has ended, its last ones are moved to a folder where
nobody looks for a killed run's: others are warm-started or continued from them.
"""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.features import CHECKPOINT_FOLDER, KEPT_FOLDER

SAVE_EVERY_S = 30.0

_FILE = "checkpoint-{}.npz"
_NAME = re.compile(r"checkpoint-(\d+)\.npz")
_ABOUT = "about"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What a run had reached.

    Attributes:
        step: optimizer steps that are done.
        arrays: as they were given to Store.save.
        progress: what the run had measured.
        names: of the first arrays, which are the model's state.
    """

    step: int
    arrays: tuple[np.ndarray, ...]
    progress: Mapping[str, Any]
    names: tuple[str, ...] = ()


class Store:
    """The checkpoints of one training run."""

    def __init__(
        self,
        model_run_dir: str,
        identity: str,
        shared_dir: str = "",
        every_s: float = SAVE_EVERY_S,
        every_steps: int | None = None,
        keep: int = 1,
    ) -> None:
        """Describe where they are.

        Args:
            model_run_dir: the artifact of this execution.
            identity: equal for runs that compute the same.
            shared_dir: a folder that outlives executions, for platforms where an interrupted execution's
                artifact is lost with its pod; empty: none.
            every_s: the least time between two checkpoints, seconds.
            every_steps: the steps between two, instead.
            keep: how many to keep, the last ones.
        """
        self._identity, self._keep = identity, keep
        self._kept = tf.io.gfile.join(model_run_dir, KEPT_FOLDER)
        self._every_s, self._every_steps = every_s, every_steps
        self._saved_at = time.monotonic()
        if shared_dir:
            self._folder = tf.io.gfile.join(shared_dir, identity)
            self._pattern = tf.io.gfile.join(self._folder, _FILE.format("*"))
        else:
            self._folder = tf.io.gfile.join(model_run_dir, CHECKPOINT_FOLDER)
            artifacts = model_run_dir.rstrip("/").rpartition("/")[0]
            self._pattern = tf.io.gfile.join(artifacts, "*", CHECKPOINT_FOLDER, _FILE.format("*"))

    @property
    def counts_steps(self) -> bool:
        """Whether `due` goes by steps alone, so that several workers know it at the same one."""
        return self._every_steps is not None

    def due(self, step: int) -> bool:
        """Whether it is time for the next one, after `step` steps."""
        if self._every_steps:
            return step % self._every_steps == 0
        return time.monotonic() - self._saved_at >= self._every_s

    def save(
        self,
        step: int,
        arrays: Sequence[np.ndarray],
        progress: Mapping[str, Any],
        names: Sequence[str] = (),
    ) -> None:
        """Write a checkpoint, and remove the oldest ones; `progress` must be JSON."""
        about = {"identity": self._identity, "step": step, "progress": progress, "names": list(names)}
        content = io.BytesIO()
        named: dict[str, Any] = {str(position): array for position, array in enumerate(arrays)}
        named[_ABOUT] = np.array(json.dumps(about))
        np.savez(content, **named)
        tf.io.gfile.makedirs(self._folder)
        path = tf.io.gfile.join(self._folder, _FILE.format(step))
        with tf.io.gfile.GFile(f"{path}.part", "wb") as file:
            file.write(content.getvalue())
        tf.io.gfile.rename(f"{path}.part", path, overwrite=True)
        for old in _in_order(self._folder)[: -self._keep]:
            tf.io.gfile.remove(old)
        self._saved_at = time.monotonic()

    def latest(self) -> Checkpoint | None:
        """The furthest checkpoint of a killed run like this one, or None."""
        found = [checkpoint for _, checkpoint in self._of_this()]
        return max(found, key=lambda checkpoint: checkpoint.step, default=None)

    def finish(self) -> None:
        """The run is over: keep this execution's last checkpoints for others to begin with."""
        tf.io.gfile.makedirs(self._kept)
        for path in _in_order(self._folder):
            tf.io.gfile.copy(path, tf.io.gfile.join(self._kept, path.rpartition("/")[2]), overwrite=True)
        self.remove()

    def remove(self) -> None:
        """Remove all checkpoints of killed runs like this one."""
        for folder in {path.rpartition("/")[0] for path, _ in self._of_this()}:
            tf.io.gfile.rmtree(folder)

    def _of_this(self) -> Iterator[tuple[str, Checkpoint]]:
        for path in tf.io.gfile.glob(self._pattern):
            try:
                about, checkpoint = _read(path)
            except Exception as error:
                # Whatever is wrong with it, the run can still start from the beginning.
                _LOG.warning("%s cannot be read and is left alone: %s", path, error)
                continue
            if about.get("identity") == self._identity:
                yield path, checkpoint


def kept(folder: str) -> list[str]:
    """The checkpoints of a finished run, in the order of their steps.

    Args:
        folder: its model_run artifact, or the folder of the checkpoints in there.
    """
    return _in_order(tf.io.gfile.join(folder, KEPT_FOLDER)) or _in_order(folder)


def read(path: str) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ValueError: for a file that is none.
    """
    try:
        _, checkpoint = _read(path)
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint of a run: {error}") from error
    return checkpoint


def _in_order(folder: str) -> list[str]:
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    steps = {int(match[1]): name for name in names if (match := _NAME.fullmatch(name))}
    return [tf.io.gfile.join(folder, steps[step]) for step in sorted(steps)]


def _read(path: str) -> tuple[Mapping[str, Any], Checkpoint]:
    with tf.io.gfile.GFile(path, "rb") as file, np.load(io.BytesIO(file.read())) as content:
        about = json.loads(str(content[_ABOUT]))
        arrays = tuple(content[str(position)] for position in range(len(content.files) - 1))
    return about, Checkpoint(about["step"], arrays, about["progress"], tuple(about["names"]))
