"""ImageExampleGen: work."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

from components.image_example_gen.shards import write_shard
from components.image_example_gen.sources import idx
from components.image_example_gen.split import Batch, Cutoff, Place, before, content_hashes
from trainer import features

SPLITS = (features.TRAIN, features.VALIDATION, features.TEST)
_BATCH = 2048  # examples in one element
_PART = 1 << 16  # examples that one worker reads
_STAGING = ".unfinished"

Shard = tuple[str, int]  # a split and the number of one of its files
Files = tuple[str, str, int]  # images, labels, classes


class DataChangedError(Exception):
    """The files are not those that the pipeline was set up for."""


class Executor(BaseBeamExecutor):
    """Checks the files, splits their examples and writes them.

    Beam workers read the files by their paths, so on several machines these are on a shared file system.
    """

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the `examples` artifact from the `dataset` artifact.

        Raises:
            idx.IdxError: where a file is bad, or there are too few examples to set any aside.
            DataChangedError: where the contents are not those of the fingerprint.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        folder = artifact_utils.get_single_uri(input_dict["dataset"])
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        facts = idx.inspect(folder, exec_properties["num_classes"] or None)
        _check_fingerprint(folder, facts.fingerprint, exec_properties["fingerprint"])
        sizes = idx.split_sizes(folder, facts)

        staging = str(PurePath(examples.uri) / _STAGING)
        folders = {split: artifact_utils.get_split_uri([examples], split) for split in SPLITS}
        files = idx.find_files(folder)
        images = dict.fromkeys(SPLITS, files.train_images) | {features.TEST: files.test_images}
        write = WriteShard(folders, images, staging, exec_properties["shards"])
        try:
            with self._make_beam_pipeline() as pipeline:
                _build(pipeline, files, facts, sizes, write)
        finally:
            if tf.io.gfile.exists(staging):
                tf.io.gfile.rmtree(staging)

        examples_utils.set_payload_format(examples, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
        examples.set_string_custom_property("fingerprint", facts.fingerprint)
        examples.set_int_custom_property("height", facts.height)
        examples.set_int_custom_property("width", facts.width)
        examples.set_int_custom_property("num_classes", facts.num_classes)
        for split, size in sizes.items():
            examples.set_int_custom_property(f"{split}_examples", size)


def _check_fingerprint(folder: str, found: str, wanted: str) -> None:
    if wanted and found != wanted:
        raise DataChangedError(
            f"the data in {folder} changed: their fingerprint is {found}, the pipeline was set up for "
            f"{wanted}; start the run again, or compile the pipeline again"
        )


def _build(
    pipeline: beam.Pipeline,
    files: idx.IdxDataset,
    facts: idx.DatasetFacts,
    sizes: dict[str, int],
    write: WriteShard,
) -> None:
    """The Beam graph: read, hash, find the cutoff, assign each example to a shard, write, count."""
    classes = facts.num_classes
    training = _read(pipeline, "Train", (str(files.train_images), str(files.train_labels), classes))
    test = _read(pipeline, "Test", (str(files.test_images), str(files.test_labels), classes))
    cutoff = training | beam.CombineGlobally(Cutoff(sizes[features.VALIDATION]))
    assigned = (
        training
        | "AssignTrain" >> beam.FlatMap(assign_train, write.shards, beam.pvalue.AsSingleton(cutoff)),
        test | "AssignTest" >> beam.FlatMap(assign, features.TEST, write.shards),
        # So that a shard which no example falls into is written all the same.
        pipeline | beam.Create(_empty_shards(write.shards)),
    )
    _ = (
        assigned
        | beam.Flatten()
        | beam.GroupByKey()
        | beam.ParDo(write)
        | beam.CombinePerKey(sum)
        | beam.Map(check_count, sizes)
    )


def _read(pipeline: beam.Pipeline, name: str, files: Files) -> beam.PCollection[Batch]:
    parts = pipeline | f"{name}Parts" >> beam.Create(list(_parts(*files)))
    # Without it, Beam gives all parts to the one worker that was given the list of them.
    spread = parts | f"Spread{name}" >> beam.Reshuffle()
    return spread | f"Read{name}" >> beam.FlatMapTuple(read)


def _parts(images_path: str, labels_path: str, num_classes: int) -> Iterator[tuple[Files, int, int]]:
    """What can be read at the same time: a gzipped file only as a whole."""
    with idx.IdxReader(images_path, 3) as images, idx.IdxReader(labels_path, 1) as labels:
        count = images.shape[0]
        step = count if images.is_gzipped or labels.is_gzipped else _PART
    for first in range(0, count, step):
        yield (images_path, labels_path, num_classes), first, min(first + step, count)


def read(files: Files, first: int, stop: int) -> Iterator[Batch]:
    """The examples of a part of a pair of files, in batches."""
    images_path, labels_path, num_classes = files
    for images, labels in idx.stream(images_path, labels_path, _BATCH, num_classes, range(first, stop)):
        yield hashed(images, labels, first)
        first += len(labels)


def hashed(images: NDArray[np.uint8], labels: NDArray[np.uint8], first: int) -> Batch:
    """A batch from uint8 [n, H, W], uint8 [n] and the index of the first example."""
    indices = np.arange(first, first + len(labels), dtype=np.int64)
    return Batch(labels, content_hashes(images, labels), indices)


def assign_train(batch: Batch, shards: int, cutoff: Place) -> Iterator[tuple[Shard, Batch]]:
    """Split training examples at the cutoff and give each part to its shards."""
    validates = before(batch, cutoff)
    yield from assign(batch.select(validates), features.VALIDATION, shards)
    yield from assign(batch.select(~validates), features.TRAIN, shards)


def assign(batch: Batch, split: str, shards: int) -> Iterator[tuple[Shard, Batch]]:
    """Give examples to the shards of their split, by the low bits of their hashes."""
    numbers = batch.hashes % np.uint64(shards)
    for number in range(shards):
        part = batch.select(numbers == number)
        if len(part):
            yield (split, number), part


def _empty_shards(shards: int) -> list[tuple[Shard, Batch]]:
    empty = Batch(np.empty(0, np.uint8), np.empty(0, np.uint64), np.empty(0, np.int64))
    return [((split, number), empty) for split in SPLITS for number in range(shards)]


class WriteShard(beam.DoFn):
    """Writes one shard; yields its split and how many examples it has."""

    def __init__(
        self, folders: Mapping[str, str], images: Mapping[str, Path], staging: str, shards: int
    ) -> None:
        super().__init__()
        self._folders, self._images, self._staging, self.shards = folders, images, staging, shards

    def process(self, element: tuple[Shard, Iterable[Batch]]) -> Iterator[tuple[str, int]]:
        (split, number), batches = element
        images_at = functools.partial(idx.images_at, self._images[split])
        folder = self._folders[split]
        yield split, write_shard(folder, self._staging, number, self.shards, batches, images_at)


def check_count(written: tuple[str, int], expected: dict[str, int]) -> None:
    """Fail rather than lose an example."""
    split, count = written
    if count != expected[split]:
        raise RuntimeError(f"{count} examples written to {split}, {expected[split]} expected")
