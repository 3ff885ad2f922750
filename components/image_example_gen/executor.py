"""ImageExampleGen: work."""

from __future__ import annotations

import bisect
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact

from components.image_example_gen.shards import write_shard
from components.image_example_gen.sources import SPLITS, DataSet, Options, Part, Pictures, Source, choose
from components.image_example_gen.split import (
    Batch,
    Cutoffs,
    Place,
    before,
    content_hashes,
)
from components.image_example_gen.splitting import Splitting, splitting
from components.shared.examples import ABSENT, CLASS_NAMES, IMAGES, SKIPPED_FILE
from trainer import features
from trainer.features import ImageInput, ImageShape

_STAGING = ".unfinished"

Shard = tuple[str, int]  # a split and the number of one of its files


class DataChangedError(Exception):
    """The files are not those that the pipeline was set up for."""


class Executor(BaseBeamExecutor):
    """Checks the data set, splits its examples and writes them.

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
            SourceError: where a file is bad, or there are too few examples to set any aside.
            DataChangedError: where the contents are not those of the fingerprint.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        folder = artifact_utils.get_single_uri(input_dict["dataset"])
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        examples.split_names = artifact_utils.encode_split_names(list(SPLITS))
        # Nothing but the contents is asked for where the check before the run has said what the images are.
        wanted, images_given = exec_properties["fingerprint"], exec_properties["images"]
        options = Options(
            **{
                "num_classes": exec_properties["num_classes"],
                "checked": wanted if images_given else "",
                **json.loads(exec_properties["options"] or "{}"),
            }
        )
        source = choose(folder, exec_properties["source"], options)
        data = source.inspect()
        _check_fingerprint(folder, data.fingerprint, wanted)
        split = splitting(data.examples, folder)
        images = _images(images_given, data)
        reader = Reader(source, data, images.shape)
        images = images._replace(encoded=reader.encoded)

        staging = str(PurePath(examples.uri) / _STAGING)
        folders = {split: artifact_utils.get_split_uri([examples], split) for split in SPLITS}
        write = WriteShard(folders, reader, staging, exec_properties["shards"], tuple(split.cut))
        try:
            with self._make_beam_pipeline() as pipeline:
                _build(pipeline, reader, split, write)
        finally:
            if tf.io.gfile.exists(staging):
                tf.io.gfile.rmtree(staging)
        _describe(examples, data, images, split.sizes)


def _check_fingerprint(folder: str, found: str, wanted: str) -> None:
    if wanted and found != wanted:
        raise DataChangedError(
            f"the data in {folder} changed: their fingerprint is {found}, the pipeline was set up for "
            f"{wanted}; start the run again, or compile the pipeline again"
        )


def _images(given: str, data: DataSet) -> ImageInput:
    return (
        ImageInput.of(json.loads(given)) if given else ImageInput(ImageShape(*data.largest, data.channels))
    )


def _describe(examples: Artifact, data: DataSet, images: ImageInput, sizes: Mapping[str, int]) -> None:
    """What the examples are, as custom properties of the artifact."""
    examples_utils.set_payload_format(examples, example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE)
    examples.set_string_custom_property("fingerprint", data.fingerprint)
    examples.set_string_custom_property("source", data.source)
    examples.set_string_custom_property(CLASS_NAMES, json.dumps(data.class_names))
    examples.set_string_custom_property(ABSENT, json.dumps(data.absent))
    examples.set_string_custom_property(IMAGES, json.dumps(images._asdict()))
    examples.set_int_custom_property("height", images.shape.height)
    examples.set_int_custom_property("width", images.shape.width)
    examples.set_int_custom_property("num_classes", data.num_classes)
    examples.set_int_custom_property("skipped", len(data.skipped))
    for split, size in sizes.items():
        examples.set_int_custom_property(f"{split}_examples", size)
    if data.skipped:
        with tf.io.gfile.GFile(str(PurePath(examples.uri) / SKIPPED_FILE), "w") as file:
            file.write(json.dumps({each.id: each.reason for each in data.skipped}))


class Reader:
    """Reads pictures as examples have them: without those left out, and as files where sizes differ.

    Attributes:
        parts: of the source, by its splits.
        encoded: whether an image is a picture file.
    """

    def __init__(self, source: Source, data: DataSet, shape: ImageShape) -> None:
        """Read this data set for images of this shape."""
        self._source = source
        self._skipped = frozenset(each.id for each in data.skipped)
        self._shape = None if data.encoded else ImageShape(*data.largest, data.channels)
        self.encoded = data.encoded or self._shape != shape
        self.parts: dict[str, list[Part]] = {}
        for part in source.parts(data):
            self.parts.setdefault(part.split, []).append(part)

    def read(self, part: Part, at: NDArray[np.int64] | None = None) -> Iterator[Pictures]:
        """As base.Source has it."""
        for pictures in self._source.read(part, at):
            yield self._encode(self._good(pictures))

    def pictures_at(self, split: str, indices: NDArray[np.int64]) -> Iterator[Pictures]:
        """The pictures at some places of a split of the source, which ascend, some at a time."""
        parts = self.parts[split]
        firsts = [part.first for part in parts]
        done = 0
        while done < len(indices):
            part = parts[bisect.bisect_right(firsts, int(indices[done])) - 1]
            until = int(np.searchsorted(indices, part.first + part.count))
            for pictures in self.read(part, indices[done:until] - part.first):
                done += len(pictures)
                yield pictures
            if done != until:
                raise RuntimeError(f"{until - done} pictures of {part.split} are gone")

    def _good(self, pictures: Pictures) -> Pictures:
        if not self._skipped or self._skipped.isdisjoint(pictures.ids):
            return pictures
        good = [number for number, where in enumerate(pictures.ids) if where not in self._skipped]
        return Pictures(
            [pictures.images[number] for number in good],
            pictures.labels[good],
            [pictures.ids[number] for number in good],
            pictures.places[good],
        )

    def _encode(self, pictures: Pictures) -> Pictures:
        if not self.encoded or self._shape is None:
            return pictures
        images = [_png(image, self._shape) for image in pictures.images]
        return Pictures(images, pictures.labels, pictures.ids, pictures.places)


def _png(pixels: bytes, shape: ImageShape) -> bytes:
    """A picture file, which Transform's graph can resize."""
    buffer = io.BytesIO()
    mode = "L" if shape.channels == 1 else "RGB"
    Image.frombytes(mode, (shape.width, shape.height), pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _build(pipeline: beam.Pipeline, reader: Reader, split: Splitting, write: WriteShard) -> None:
    """The Beam graph: read, hash, find the cutoffs, assign each example to a shard, write, count."""
    read = {name: _read(pipeline, name, reader) for name in reader.parts}
    assigned = [
        examples | f"Assign {name}" >> beam.FlatMap(assign, name, write.shards)
        for name, examples in read.items()
        if name != features.TRAIN
    ]
    ends = np.cumsum(list(split.cut.values())).tolist()
    cutoffs = read[features.TRAIN] | beam.CombineGlobally(Cutoffs(ends or [0]))
    assigned.append(
        read[features.TRAIN]
        | "Assign train"
        >> beam.FlatMap(assign_train, write.shards, tuple(split.cut), beam.pvalue.AsSingleton(cutoffs))
    )
    # So that a shard which no example falls into is written all the same.
    assigned.append(pipeline | beam.Create(_empty_shards(write.shards)))
    _ = (
        tuple(assigned)
        | beam.Flatten()
        | beam.GroupByKey()
        | beam.ParDo(write)
        | beam.CombinePerKey(sum)
        | beam.Map(check_count, dict(split.sizes))
    )


def _read(pipeline: beam.Pipeline, name: str, reader: Reader) -> beam.PCollection[Batch]:
    parts = pipeline | f"Parts of {name}" >> beam.Create(reader.parts[name])
    # Without it, Beam gives all parts to the one worker that was given the list of them.
    spread = parts | f"Spread {name}" >> beam.Reshuffle()
    return spread | f"Read {name}" >> beam.ParDo(Hash(reader))


class Hash(beam.DoFn):
    """The examples of a part, in batches, without their images."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._reader = reader

    def process(self, element: Part) -> Iterator[Batch]:
        for pictures in self._reader.read(element):
            hashes = content_hashes(pictures.images, pictures.labels)
            yield Batch.of(hashes, element.first + pictures.places)


def assign_train(
    batch: Batch, shards: int, cut: Sequence[str], cutoffs: Sequence[Place]
) -> Iterator[tuple[Shard, Batch]]:
    """Cut splits off the examples for training, in order, and give each part to its shards."""
    for split, cutoff in zip(cut, cutoffs, strict=False):
        inside = before(batch, cutoff)
        yield from assign(batch.select(inside), split, shards)
        batch = batch.select(~inside)
    yield from assign(batch, features.TRAIN, shards)


def assign(batch: Batch, split: str, shards: int) -> Iterator[tuple[Shard, Batch]]:
    """Give examples to the shards of their split, by the low bits of their hashes."""
    numbers = batch.hashes % np.uint64(shards)
    for number in range(shards):
        part = batch.select(numbers == number)
        if len(part):
            yield (split, number), part


def _empty_shards(shards: int) -> list[tuple[Shard, Batch]]:
    empty = Batch.of(np.empty(0, np.uint64), np.empty(0, np.int64))
    return [((split, number), empty) for split in SPLITS for number in range(shards)]


class WriteShard(beam.DoFn):
    """Writes one shard; yields its split and how many examples it has."""

    def __init__(
        self, folders: Mapping[str, str], reader: Reader, staging: str, shards: int, cut: Sequence[str]
    ) -> None:
        super().__init__()
        self._folders, self._reader, self._staging, self._cut = folders, reader, staging, cut
        self.shards = shards

    def process(self, element: tuple[Shard, Iterable[Batch]]) -> Iterator[tuple[str, int]]:
        (split, number), batches = element
        source_split = features.TRAIN if split in self._cut else split

        def pictures_at(indices: NDArray[np.int64]) -> Iterator[Pictures]:
            return self._reader.pictures_at(source_split, indices)

        folder = self._folders[split]
        yield split, write_shard(folder, self._staging, number, self.shards, batches, pictures_at)


def check_count(written: tuple[str, int], expected: dict[str, int]) -> None:
    """Fail rather than lose an example."""
    split, count = written
    if count != expected[split]:
        raise RuntimeError(f"{count} examples written to {split}, {expected[split]} expected")
