"""Small data sets as the Trainer gets them: TFRecords, Transform's graph, a schema."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata
from tfx.components.trainer.fn_args_utils import FnArgs

from trainer import features
from trainer.preprocessing import preprocessing_fn

SCHEMA = """
feature {{ name: "image" type: BYTES shape {{ dim {{ size: 1 }} }} }}
feature {{ name: "label" type: INT int_domain {{ name: "label" min: 0 max: {last} }}
           shape {{ dim {{ size: 1 }} }} }}
"""


@dataclass(frozen=True)
class Dataset:
    """A data set on disk, and its content."""

    folder: Path
    images: np.ndarray  # uint8 [N, H, W]
    labels: np.ndarray  # int64 [N]

    @property
    def transform(self) -> tft.TFTransformOutput:
        return tft.TFTransformOutput(str(self.folder / "transform_graph"))

    @property
    def patterns(self) -> list[str]:
        return [str(self.folder / "train-*")]

    @property
    def raw(self) -> list[bytes]:
        return [image.tobytes() for image in self.images]

    def fn_args(self, output: Path, recipe: str = "fast", **overrides: Any) -> FnArgs:
        """What TFX's Trainer hands to run_fn; the validation split is the training split."""
        graph = str(self.folder / "transform_graph")
        schema = str(self.folder / "schema.pbtxt")
        return FnArgs(
            train_files=self.patterns,
            eval_files=self.patterns,
            train_steps=0,
            eval_steps=0,
            transform_output=graph,
            transform_graph_path=graph,
            schema_path=schema,
            schema_file=schema,
            serving_model_dir=str(output / "Format-Serving"),
            model_run_dir=str(output / "model_run"),
            custom_config={"recipe": recipe, "overrides": overrides},
        )


def example(image: bytes, label: int) -> bytes:
    """A serialized tf.Example as ImageExampleGen writes it."""
    bytes_list = tf.train.BytesList(value=[image])
    int64_list = tf.train.Int64List(value=[label])
    feature = {
        features.IMAGE: tf.train.Feature(bytes_list=bytes_list),
        features.LABEL: tf.train.Feature(int64_list=int64_list),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """A TFRecord file; compressed where its name ends in .gz."""
    with tf.io.TFRecordWriter(str(path), "GZIP" if path.suffix == ".gz" else "") as writer:
        for record in records:
            writer.write(record)


def write_dataset(folder: Path, images: np.ndarray, labels: np.ndarray) -> Dataset:
    """Two shards, one of them compressed, and the rest of what the Trainer reads."""
    dataset = Dataset(folder, images, labels.astype(np.int64))
    records = [example(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]
    write_records(folder / "train-0", records[::2])
    write_records(folder / "train-1.gz", records[1::2])
    (folder / "schema.pbtxt").write_text(SCHEMA.format(last=labels.max()))
    spec = {
        features.IMAGE: tf.io.FixedLenFeature([1], tf.string),
        features.LABEL: tf.io.FixedLenFeature([1], tf.int64),
    }
    rows = [{features.IMAGE: [images[0].tobytes()], features.LABEL: [int(labels[0])]}]
    config = {"images": features.ImageInput(features.ImageShape(*images.shape[1:]))._asdict()}
    with beam.Pipeline(runner=FnApiRunner()) as pipeline, tft_beam.Context(str(folder / "temporary")):
        raw = (pipeline | beam.Create(rows), DatasetMetadata.from_feature_spec(spec))
        transform_fn = raw | tft_beam.AnalyzeDataset(
            functools.partial(preprocessing_fn, custom_config=config)
        )
        _ = transform_fn | tft_beam.WriteTransformFn(str(folder / "transform_graph"))
    return dataset


@pytest.fixture(scope="session")
def digits(tiny_mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Real digits, a few hundred."""
    images = np.fromfile(tiny_mnist_dir / "train-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28)
    labels = np.fromfile(tiny_mnist_dir / "train-labels-idx1-ubyte", np.uint8)[8:]
    return write_dataset(tmp_path_factory.mktemp("digits"), images[:400], labels[:400])


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Another size and class count: 20 x 16 pixels, 7 classes; the class is the bright row."""
    labels = np.arange(210) % 7
    images = np.random.default_rng(0).integers(0, 40, (210, 20, 16), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 2] += 200
    return write_dataset(tmp_path_factory.mktemp("stripes"), images, labels)
