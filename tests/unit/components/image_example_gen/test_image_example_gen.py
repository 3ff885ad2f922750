"""ImageExampleGen, run for real: exact splits, the same whatever the files' order, what is on disk."""

from __future__ import annotations

import gzip
import json
import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import example_gen_pb2
from tfx.types import standard_artifacts
from tfx.types.channel import Channel
from tfx_bsl.public.tfxio import TFExampleRecord

from components.artifacts import Images
from components.image_example_gen.component import ImageExampleGen
from components.image_example_gen.executor import DataChangedError, Executor
from components.image_example_gen.shards import serialize, write_shard
from components.image_example_gen.sources import (
    Pictures,
    SourceError,
    choose,
    idx,
    idx_folder,
    idx_pairs,
    pictures,
)
from components.image_example_gen.sources.idx_folder import IdxFolder
from components.image_example_gen.split import Batch, Cutoffs, before
from tests.conftest import idx_bytes
from tests.unit.components.image_example_gen.sources import data as datasets

SPLITS = ["train", "validation", "test"]
SIZES = {"train": 550, "validation": 50, "test": 200}

Digits = tuple[np.ndarray, np.ndarray]


def generate(data: Path, out: Path, **properties: Any) -> standard_artifacts.Examples:
    dataset, examples = Images(), standard_artifacts.Examples()
    dataset.uri, examples.uri = str(data), str(out)
    context = BaseBeamExecutor.Context(
        beam_pipeline_args=["--runner=FnApiRunner", "--sdk_container_image=not-used-in-process"],
        tmp_dir=str(out.parent / "tmp"),
        unique_id="1",
    )
    given = {
        "fingerprint": "",
        "num_classes": 0,
        "shards": 2,
        "source": "",
        "options": "",
        "images": "",
        **properties,
    }
    Executor(context).Do({"dataset": [dataset]}, {"examples": [examples]}, given)
    return examples


def records(examples: standard_artifacts.Examples, split: str) -> Iterator[bytes]:
    for file in sorted(Path(examples.uri, f"Split-{split}").iterdir()):
        yield from tf.data.TFRecordDataset(str(file)).as_numpy_iterator()


def contents(examples: standard_artifacts.Examples, split: str) -> list[tuple[bytes, int]]:
    found = []
    for record in records(examples, split):
        feature = tf.train.Example.FromString(record).features.feature
        assert set(feature) == {"id", "image", "label"}
        (image,), (label,) = feature["image"].bytes_list.value, feature["label"].int64_list.value
        found.append((image, label))
    return found


def files(examples: standard_artifacts.Examples) -> dict[str, bytes]:
    root = Path(examples.uri)
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def read(folder: Path) -> dict[str, Digits]:
    found = idx.find_files(folder)
    pairs = {
        "train": (found.train_images, found.train_labels),
        "t10k": (found.test_images, found.test_labels),
    }
    return {name: next(idx_pairs.stream(*paths, 10_000, None)) for name, paths in pairs.items()}


def write(folder: Path, digits: dict[str, Digits]) -> Path:
    folder.mkdir()
    for name, (images, labels) in digits.items():
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


@pytest.fixture(scope="module")
def examples(tiny_mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> standard_artifacts.Examples:
    return generate(tiny_mnist_dir, tmp_path_factory.mktemp("generated") / "examples")


def test_every_digit_is_in_one_split_and_the_sizes_are_exact(
    examples: standard_artifacts.Examples, tiny_mnist_dir: Path
) -> None:
    found = {split: contents(examples, split) for split in SPLITS}
    assert {split: len(content) for split, content in found.items()} == SIZES
    digits = {
        name: sorted((image.tobytes(), int(label)) for image, label in zip(*pair, strict=True))
        for name, pair in read(tiny_mnist_dir).items()
    }
    assert sorted(found["train"] + found["validation"]) == digits["train"]
    assert sorted(found["test"]) == digits["t10k"]


def test_layout_and_properties(examples: standard_artifacts.Examples, tiny_mnist_dir: Path) -> None:
    assert json.loads(examples.split_names) == SPLITS
    shards = ("data_tfrecord-00000-of-00002", "data_tfrecord-00001-of-00002")
    assert set(files(examples)) == {f"Split-{split}/{shard}" for split in SPLITS for shard in shards}
    assert {path.name for path in Path(examples.uri).iterdir()} == {f"Split-{split}" for split in SPLITS}
    assert examples_utils.get_payload_format(examples) == example_gen_pb2.FORMAT_TF_EXAMPLE
    facts = IdxFolder(tiny_mnist_dir).inspect()
    assert examples.get_string_custom_property("fingerprint") == facts.fingerprint
    names = ["height", "width", "num_classes", *(f"{split}_examples" for split in SPLITS)]
    assert [examples.get_int_custom_property(name) for name in names] == [28, 28, 10, 550, 50, 200]


def rows_that_tfx_reads(examples: standard_artifacts.Examples, split: str, out: Path) -> int:
    """Read a split as StatisticsGen and Transform do."""
    reader = TFExampleRecord(str(Path(examples.uri, f"Split-{split}", "*")), telemetry_descriptors=["test"])
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = (
            pipeline
            | reader.BeamSource()
            | beam.Map(lambda batch: batch.num_rows)
            | beam.CombineGlobally(sum)
            | beam.io.WriteToText(str(out), shard_name_template="")
        )
    return int(out.read_text())


def test_tfx_s_reader_reads_it(examples: standard_artifacts.Examples, tmp_path: Path) -> None:
    assert rows_that_tfx_reads(examples, "validation", tmp_path / "rows") == SIZES["validation"]


def test_the_order_of_the_files_changes_no_byte(
    examples: standard_artifacts.Examples, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    shuffled = {}
    for name, (images, labels) in read(tiny_mnist_dir).items():
        order = rng.permutation(len(labels))
        shuffled[name] = (images[order], labels[order])
    other = generate(write(tmp_path / "shuffled", shuffled), tmp_path / "examples")
    for split in SPLITS:  # in the same order; only the ids tell where they come from
        assert contents(other, split) == contents(examples, split)


def test_files_that_are_read_in_parts_change_no_byte(
    examples: standard_artifacts.Examples,
    tiny_mnist_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idx_folder, "PART", 130)
    assert files(generate(tiny_mnist_dir, tmp_path / "examples")) == files(examples)


def test_gzipped_files_change_no_byte(
    examples: standard_artifacts.Examples, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    data = tmp_path / "zipped"
    data.mkdir()
    for path in tiny_mnist_dir.iterdir():
        (data / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    other = generate(
        data, tmp_path / "examples", fingerprint=IdxFolder(tiny_mnist_dir).inspect().fingerprint
    )
    assert files(other) == files(examples)
    assert other.get_string_custom_property("fingerprint") == examples.get_string_custom_property(
        "fingerprint"
    )


@pytest.mark.slow
def test_more_shards_than_examples_are_all_there(tmp_path: Path) -> None:
    """13 images, all the same: one of them validates, whichever it is."""
    same: Digits = np.full((13, 2, 5), 7, np.uint8), np.zeros(13, np.uint8)
    data = write(tmp_path / "data", {"train": same, "t10k": (same[0][:1], same[1][:1] + 1)})
    examples = generate(data, tmp_path / "examples", shards=3, num_classes=300)
    assert {split: len(contents(examples, split)) for split in SPLITS} == {
        "train": 12,
        "validation": 1,
        "test": 1,
    }
    assert len(files(examples)) == 9
    assert rows_that_tfx_reads(examples, "test", tmp_path / "rows") == 1
    assert examples.get_int_custom_property("num_classes") == 300
    assert [examples.get_int_custom_property(name) for name in ("height", "width")] == [2, 5]


def test_other_data_than_announced_are_refused(tiny_mnist_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataChangedError, match=f"{tiny_mnist_dir} changed.*run again"):
        generate(tiny_mnist_dir, tmp_path / "examples", fingerprint="0" * 64)
    assert not (tmp_path / "examples").exists()


def test_photos_that_were_checked_before_are_compared_but_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = datasets.class_folders(tmp_path / "data")
    properties = {
        "fingerprint": choose(data).inspect().fingerprint,
        "images": json.dumps({"shape": [16, 16, 3], "encoded": True}),
    }
    monkeypatch.setattr(pictures, "check", None)
    (data / "train/cat/1.jpg").write_bytes(b"another")
    with pytest.raises(DataChangedError, match=f"{data} changed"):
        generate(data, tmp_path / "examples", **properties)


def test_bad_data_are_refused_before_anything_is_written(tiny_mnist_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(idx.IdxError, match="label"):
        generate(tiny_mnist_dir, tmp_path / "examples", num_classes=5)
    few = {name: (images[:11], labels[:11] % 2) for name, (images, labels) in read(tiny_mnist_dir).items()}
    with pytest.raises(SourceError, match="11 examples: at least 12"):
        generate(write(tmp_path / "few", few), tmp_path / "examples")
    assert not (tmp_path / "examples").exists()


@pytest.mark.parametrize("size", [1, 15, 127, 128, 784, 30_000])
def test_serialized_examples_are_what_protobuf_makes(size: int) -> None:
    rng = np.random.default_rng(1)
    labels = [0, 1, 127, 128, 255, 70_000, 1]
    ids = ["", "a", "train/é.png", "x" * 200, "file#1", "file#1", "y"]
    images = [rng.bytes(size) for _ in labels]
    images[0] = b"\xff" * size
    for image, label, where, record in zip(
        images, labels, ids, serialize(images, labels, ids), strict=True
    ):
        example = tf.train.Example()
        example.features.feature["id"].bytes_list.value.append(where.encode())
        example.features.feature["image"].bytes_list.value.append(image)
        example.features.feature["label"].int64_list.value.append(label)
        assert tf.train.Example.FromString(record) == example
        assert record == example.SerializeToString(deterministic=True)


def test_a_shard_is_written_without_holding_its_images(tmp_path: Path) -> None:
    batches, size = 40, 1 << 20
    hashes = np.random.default_rng(3).permutation(batches).astype(np.uint64)

    def pictures_at(indices: np.ndarray) -> Iterator[Pictures]:
        for index in indices.tolist():
            image = bytes([index]) * size
            yield Pictures([image], np.array([index]), [str(index)], np.array([index]))

    tracemalloc.start()
    try:
        folder, staging = str(tmp_path / "split"), str(tmp_path / "staging")
        count = write_shard(folder, staging, 0, 1, [Batch.of(hashes, np.arange(batches))], pictures_at)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert count == batches
    assert peak < 8 * size
    (file,) = (tmp_path / "split").iterdir()
    found = [
        tf.train.Example.FromString(record)
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    ]
    labels = [example.features.feature["label"].int64_list.value[0] for example in found]
    assert labels == np.argsort(hashes).tolist()
    for label, example in zip(labels, found, strict=True):
        assert example.features.feature["image"].bytes_list.value[0] == bytes([label]) * size


def test_an_example_on_its_way_through_beam_is_twelve_bytes() -> None:
    hashes, indices = np.zeros(1_000_000, np.uint64), np.arange(1_000_000)

    assert len(pickle.dumps(Batch.of(hashes, indices))) < 12_001_000
    far = Batch.of(hashes, indices + (1 << 32))
    assert far.indices.tolist() == (indices + (1 << 32)).tolist()


def test_the_cutoff_is_exact_and_merges_in_any_order() -> None:
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 40, 500).astype(np.uint64)  # many ties
    everything = Batch.of(hashes, np.arange(500))
    wanted = None
    for seed in range(5):
        combine = Cutoffs([37, 90])
        parts = np.array_split(np.random.default_rng(seed).permutation(500), 9)
        accumulators = [
            combine.add_input(combine.create_accumulator(), everything.select(p)) for p in parts
        ]
        cutoff, second = combine.extract_output(combine.merge_accumulators(accumulators))
        chosen = before(everything, cutoff)
        assert chosen.sum() == 37
        assert before(everything, second).sum() == 90
        wanted = cutoff if wanted is None else wanted
        assert cutoff == wanted
    order = sorted(range(500), key=lambda i: (hashes[i], i))
    assert set(np.flatnonzero(chosen)) == set(order[:37])


@pytest.mark.slow
def test_folders_of_photos_stay_files_and_say_where_they_come_from(tmp_path: Path) -> None:
    data = datasets.class_folders(tmp_path / "data", per_class=8, splits=())
    (data / "cat/1.jpg").write_bytes(b"broken")
    options = json.dumps({"bad_images": "skip", "max_bad": 0.1})
    examples = generate(
        data, tmp_path / "examples", images=json.dumps({"shape": [16, 24, 3]}), options=options
    )
    sizes = {split: examples.get_int_custom_property(f"{split}_examples") for split in SPLITS}
    assert sizes == {"train": 19, "validation": 1, "test": 3}
    found = []
    for split in SPLITS:
        assert len(contents(examples, split)) == sizes[split]
        for record in records(examples, split):
            feature = tf.train.Example.FromString(record).features.feature
            name = feature["id"].bytes_list.value[0].decode()
            assert feature["image"].bytes_list.value[0] == (data / name).read_bytes()
            assert datasets.CLASSES[feature["label"].int64_list.value[0]] == name.partition("/")[0]
            found.append(name)
    everything = {path.relative_to(data).as_posix() for path in data.rglob("*.*")}
    assert set(found) == everything - {"cat/1.jpg"}
    assert len(found) == len(set(found))
    skipped = json.loads(Path(examples.uri, "skipped.json").read_text())
    assert list(skipped) == ["cat/1.jpg"]
    images = json.loads(examples.get_string_custom_property("images"))
    assert images == {"shape": [16, 24, 3], "encoded": True, "fit": "crop"}
    assert json.loads(examples.get_string_custom_property("class_names")) == list(datasets.CLASSES)


def test_pixels_of_another_size_become_files(tiny_mnist_dir: Path, tmp_path: Path) -> None:
    examples = generate(tiny_mnist_dir, tmp_path / "examples", images=json.dumps({"shape": [32, 32, 1]}))
    digits = {image.tobytes() for image in read(tiny_mnist_dir)["t10k"][0]}
    for content, _ in contents(examples, "test"):
        assert tf.io.decode_png(content).numpy().tobytes() in digits


def test_the_component_takes_runtime_parameters() -> None:
    node = ImageExampleGen(
        dataset=Channel(type=Images),
        fingerprint=RuntimeParameter(name="fingerprint", ptype=str, default=""),
        num_classes=10,
        shards=2,
    )
    assert node.outputs["examples"].type is standard_artifacts.Examples
    assert node.exec_properties["num_classes"] == 10
