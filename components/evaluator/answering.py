"""Asks the models about every example, on Beam: answers go to files, and what they come to is counted.

One element is a file of examples, which a worker streams through both models; so memory does not grow with
the data, and many files are worked at side by side.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from components.evaluator import tally
from components.evaluator.tally import Tally
from components.shared import answers, classifier, examples
from components.shared.answers import Mistake
from components.shared.classifier import Classifier, ModelError
from components.shared.examples import Examples
from components.shared.lite import LiteModel
from trainer.features import ImageInput

WORST = 50  # mistakes that are kept


@dataclass(frozen=True)
class Job:
    """What every worker knows.

    Attributes:
        candidate: folder of a SavedModel.
        baseline: folder of the one in production, empty where there is none.
        output: folder for the answers.
        files: how many files of examples there are.
        batch: examples that a model is asked about at once.
        sample: how many examples to keep for later.
        lite: file of a LiteRT model that the candidate is compared with, empty where there is none.
        images: how the examples hold images; only for a LiteRT model.
    """

    candidate: str
    baseline: str
    output: str
    files: int
    batch: int
    sample: int
    lite: str = ""
    images: ImageInput | None = None


@dataclass(frozen=True)
class LiteCounts:
    """Examples, by what the LiteRT model and the candidate say of them.

    Attributes:
        examples: all.
        right: those that the LiteRT model has right.
        lost: those that the candidate alone has right.
        agreed: those to which both give the same class.
    """

    examples: int
    right: int
    lost: int
    agreed: int

    def __add__(self, other: LiteCounts) -> LiteCounts:
        return LiteCounts(
            self.examples + other.examples,
            self.right + other.right,
            self.lost + other.lost,
            self.agreed + other.agreed,
        )


@dataclass(frozen=True)
class Part:
    """What came of some files.

    Attributes:
        tally: None where there was no example, or the candidate did not answer.
        mistakes: the worst, worst first.
        sample: those with the smallest content hashes: hash and serialized example.
        refused: why the candidate did not answer, empty where it did.
        baseline_refused: the same of the model in production.
        lite: the candidate's LiteRT model against the candidate.
    """

    tally: Tally | None = None
    mistakes: tuple[Mistake, ...] = ()
    sample: tuple[tuple[bytes, bytes], ...] = ()
    refused: str = ""
    baseline_refused: str = ""
    lite: LiteCounts | None = None


@dataclass(frozen=True)
class _Asked:
    """Some examples of a file, from its row `row` on, and what the models say: see Part."""

    row: int
    examples: Examples
    said: NDArray[np.float32]
    in_production: NDArray[np.float32] | None
    baseline_refused: str
    lite: LiteCounts | None


def merge(parts: Iterable[Part], sample: int) -> Part:
    """All parts as one."""
    every = list(parts)
    tallies = [part.tally for part in every if part.tally is not None]
    lites = [part.lite for part in every if part.lite is not None]
    return Part(
        tally=reduce(lambda one, other: one + other, tallies) if tallies else None,
        mistakes=tuple(_worst(mistake for part in every for mistake in part.mistakes)),
        sample=tuple(sorted(pair for part in every for pair in part.sample)[:sample]),
        refused=max(part.refused for part in every) if every else "",
        baseline_refused=max(part.baseline_refused for part in every) if every else "",
        lite=reduce(lambda one, other: one + other, lites) if lites else None,
    )


class Answer(beam.DoFn):
    """Asks about one file of examples: its number and its path in, a Part out."""

    def __init__(self, job: Job) -> None:
        """Know the job."""
        super().__init__()
        self._job = job

    def setup(self) -> None:
        """Load the models, or take those that this process has."""
        self._candidate = classifier.load(self._job.candidate)
        self._baseline = classifier.load(self._job.baseline) if self._job.baseline else None
        self._lite = LiteModel(Path(self._job.lite)) if self._job.lite else None

    def process(self, element: tuple[int, str]) -> Iterator[Part]:
        """Stream the file through the models."""
        number, path = element
        part = Part()
        with answers.writing(self._job.output, number, self._job.files) as writer:
            try:
                for asked in _ahead(self._asked(path)):
                    some, said = asked.examples, asked.said
                    ids = [_id(at, path, asked.row + place) for place, at in enumerate(some.ids)]
                    writer.write(ids, some.labels, said)
                    found = Part(
                        tally=tally.count(some.labels, said, asked.in_production),
                        mistakes=tuple(_mistakes(some, ids, said)),
                        sample=tuple(_hashed(some)) if self._job.sample else (),
                        baseline_refused=asked.baseline_refused,
                        lite=asked.lite,
                    )
                    part = merge((part, found), self._job.sample)
            except ModelError as error:
                part = Part(refused=str(error))
        yield part

    def _asked(self, path: str) -> Iterator[_Asked]:
        """What the models say of a file, batch by batch.

        Raises:
            ModelError: where the candidate does not answer.
        """
        baseline, row = self._baseline, 0
        for some in examples.read([path], self._job.batch):
            said = _ask(self._candidate, some)
            lite = self._ask_lite(some, said) if self._lite else None
            other, refused = None, ""
            if baseline is not None:
                try:
                    other = _ask(baseline, some)
                    if other.shape != said.shape:
                        raise ModelError(f"it knows {other.shape[1]} classes, not {said.shape[1]}")
                except ModelError as error:
                    # A model of another problem is in production: nothing can be lost against it.
                    other, refused, baseline = None, str(error), None
            yield _Asked(row, some, said, other, refused, lite)
            row += len(some.labels)

    def _ask_lite(self, some: Examples, said: NDArray[np.float32]) -> LiteCounts:
        assert self._lite is not None
        assert self._job.images is not None
        # The candidate has decoded every one.
        images, _ = examples.decode(some.raw, self._job.images)
        chosen, reference = self._lite.of_images(images).argmax(axis=1), said.argmax(axis=1)
        right, expected = chosen == some.labels, reference == some.labels
        return LiteCounts(
            len(right), int(right.sum()), int((expected & ~right).sum()), int((chosen == reference).sum())
        )


def run(pipeline: beam.Pipeline, job: Job, paths: list[str]) -> beam.PCollection[Part]:
    """The transform: files of examples in, one Part out."""
    return (
        pipeline
        | "Files" >> beam.Create(list(enumerate(paths)))
        | "Spread" >> beam.Reshuffle()
        | "Answer" >> beam.ParDo(Answer(job))
        | "Merge" >> beam.CombineGlobally(merge, job.sample)
    )


def _ahead(batches: Iterator[_Asked]) -> Iterator[_Asked]:
    """The same, each made beside the use of the one before: models compute without Python's lock."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, batches, None)
        while (asked := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield asked


def _ask(model: Classifier, some: Examples) -> NDArray[np.float32]:
    said = model.of_examples(some.records)
    if some.labels.min() < 0:
        raise ValueError("an example has no label")
    if some.labels.max() >= said.shape[1]:
        raise ModelError(f"it knows {said.shape[1]} classes, and labels go up to {some.labels.max()}")
    return said


def _id(given: bytes, path: str, row: int) -> str:
    """Where an example comes from; one that does not say is named by its place among the examples."""
    return given.decode(errors="replace") or f"{path.rpartition('/')[2]}#{row}"


def _mistakes(some: Examples, ids: list[str], said: NDArray[np.float32]) -> list[Mistake]:
    predicted = said.argmax(axis=1)
    wrong = np.flatnonzero(predicted != some.labels)
    of_label = said[wrong, some.labels[wrong]]
    if len(wrong) > WORST:
        wrong = wrong[np.argsort(of_label, kind="stable")[:WORST]]
    records = some.records.numpy() if len(wrong) else []
    return [
        Mistake(
            id=ids[at],
            label=int(some.labels[at]),
            predicted=int(predicted[at]),
            label_probability=float(said[at, some.labels[at]]),
            predicted_probability=float(said[at, predicted[at]]),
            example=records[at],
        )
        for at in wrong
    ]


def _worst(mistakes: Iterable[Mistake]) -> list[Mistake]:
    return heapq.nsmallest(WORST, mistakes, key=lambda mistake: (mistake.label_probability, mistake.id))


def _hashed(some: Examples) -> Iterator[tuple[bytes, bytes]]:
    for raw, record in zip(some.raw, some.records.numpy(), strict=True):
        yield hashlib.blake2b(raw, digest_size=8).digest(), record
