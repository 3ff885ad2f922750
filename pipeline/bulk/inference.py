"""Bulk inference: chunks of images through Beam's RunInference, answers to a file of JSON lines.

Each chunk's lines go to a file of their own, and these are joined in order at the end. So the output is the
same however the work was spread, memory holds a chunk a worker, and a reader of the output never meets
half of it.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import orjson
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from numpy.typing import NDArray

from components.shared import classifier
from components.shared.classifier import Classifier
from pipeline.bulk import chunks
from pipeline.bulk.chunks import Chunk, Task
from pipeline.errors import RefusedError
from pipeline.runtime import job_servers

Progress = Callable[[int], None]
logger = logging.getLogger(__name__)

_POLL_S = 0.25
_COPY_BYTES = 1 << 20


class InferenceError(RefusedError):
    """The Beam pipeline failed; the details are logged."""


@dataclass(frozen=True)
class Answered:
    """A chunk with what the model says of its images.

    Attributes:
        chunk: what was read.
        probabilities: float32 [k, C], of those that the model could read, in order.
        errors: why not, by place among the chunk's keys; those of the chunk included.
        names: of the classes, by label; none where the model does not say them.
    """

    chunk: Chunk
    probabilities: NDArray[np.float32]
    errors: dict[int, str]
    names: list[str]


class Handler(ModelHandler):
    """Asks a SavedModel: of files `serving_default`, of arrays `pixels`; a chunk is a batch already."""

    def __init__(self, model: Path) -> None:
        """Load it from this folder, once a worker."""
        super().__init__()
        self._model = model

    def load_model(self) -> Classifier:
        """The model."""
        return classifier.load(self._model)

    def run_inference(
        self,
        batch: Chunk,
        model: Classifier,
        inference_args: dict[str, Any] | None = None,  # noqa: ARG002 (Beam's interface)
    ) -> Iterable[Answered]:
        """Answer one chunk."""
        if not len(batch):
            return [Answered(batch, np.empty((0, 0), np.float32), batch.errors, [])]
        names = model.class_names()
        if isinstance(batch.images, np.ndarray):
            return [Answered(batch, model.of_images(batch.images), batch.errors, names)]
        probabilities, refused = model.of_files(batch.images)
        read = [place for place in range(len(batch.keys)) if place not in batch.errors]
        errors = batch.errors | {read[place]: reason for place, reason in refused.items()}
        return [Answered(batch, probabilities, errors, names)]

    def should_skip_batching(self) -> bool:
        """Leave chunks as they are."""
        return True

    def get_num_bytes(self, batch: Chunk) -> int:
        """For Beam's metrics, which would pickle the batch to learn it."""
        if isinstance(batch.images, np.ndarray):
            return batch.images.nbytes
        return sum(map(len, batch.images))


def infer(
    tasks: Sequence[Task],
    model: Path,
    output: Path,
    beam_args: Sequence[str],
    with_probabilities: bool = False,
    progress: Progress | None = None,
) -> int:
    """Ask a model about every image, one JSON line each, in the order of the input.

    A line holds `file` (and `index` in an IDX file), `class`, its `name` and `probability`, or `file` and
    `error`.

    Args:
        tasks: from bulk_input.plan.
        model: folder of a SavedModel.
        output: is written whole or not at all; an earlier one is replaced.
        beam_args: Beam's flags.
        with_probabilities: give those of all classes as well.
        progress: is told how many images are done, again and again.

    Returns:
        How many pictures could not be read.

    Raises:
        InferenceError: where reading, asking or writing failed.
        OSError: where the output cannot be written.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    parts = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        with _watched(parts, tasks, progress):
            _run(tasks, model, parts, beam_args, with_probabilities)
        whole = parts / "whole"
        with whole.open("wb") as joined:
            for number in range(sum(len(task.counts) for task in tasks)):
                with _part(parts, number).open("rb") as part:
                    shutil.copyfileobj(part, joined, _COPY_BYTES)
                _part(parts, number).unlink()
        unread = sum(int(file.read_text()) for file in parts.glob("*.errors"))
        whole.replace(output)
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    return unread


def _run(
    tasks: Sequence[Task], model: Path, parts: Path, beam_args: Sequence[str], with_probabilities: bool
) -> None:
    try:
        with job_servers.shared(), beam.Pipeline(options=PipelineOptions(list(beam_args))) as pipeline:
            _ = (
                pipeline
                | "Tasks" >> beam.Create(list(tasks))
                | "Read" >> beam.FlatMap(chunks.read)
                | "Infer" >> RunInference(Handler(model))
                | "Write" >> beam.Map(_write, str(parts), with_probabilities)
            )
    except Exception as error:
        logger.exception("bulk inference failed")
        raise InferenceError(str(error).partition("\n")[0]) from None


def lines(answered: Answered, with_probabilities: bool) -> Iterator[bytes]:
    """The JSON lines of a chunk, in order."""
    place = 0
    for number, key in enumerate(answered.chunk.keys):
        error = answered.errors.get(number)
        if error is not None:
            yield orjson.dumps({**key, "error": error}, option=orjson.OPT_APPEND_NEWLINE)
            continue
        probabilities = answered.probabilities[place]
        best = int(probabilities.argmax())
        name = answered.names[best] if answered.names else str(best)
        line = {**key, "class": best, "name": name, "probability": probabilities[best]}
        if with_probabilities:
            line["probabilities"] = probabilities
        yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY)
        place += 1


def _write(answered: Answered, folder: str, with_probabilities: bool) -> None:
    # Whole or not at all: a runner may try the same chunk twice.
    number = answered.chunk.number
    part = _part(Path(folder), number)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.writelines(lines(answered, with_probabilities))
    if answered.errors:
        part.with_suffix(".errors").write_text(str(len(answered.errors)))
    Path(file.name).replace(part)


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.jsonl"


@contextmanager
def _watched(parts: Path, tasks: Sequence[Task], progress: Progress | None) -> Iterator[None]:
    """Tell how many images are done, by the files that are there."""
    if progress is None:
        yield
        return
    counts = [count for task in tasks for count in task.counts]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(_POLL_S):
            progress(sum(counts[int(part.stem)] for part in parts.glob("*.jsonl")))

    thread = threading.Thread(target=watch, name="bulk-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
