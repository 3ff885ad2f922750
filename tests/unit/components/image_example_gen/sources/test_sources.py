"""Every source: what it finds, what it reads, and one line for each fault."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from components.image_example_gen.sources import DataSet, Options, Source, SourceError, choose
from components.image_example_gen.sources import pictures as picture_files
from tests.unit.components.image_example_gen.sources import data
from tests.unit.components.image_example_gen.sources.data import CLASSES

MAKERS: dict[str, Callable[[Path], Path]] = {
    "folder": data.class_folders,
    "manifest": lambda folder: data.manifest(
        folder,
        [
            {"path": f"{split}/{at}.png", "label": CLASSES[at % 3], "split": split}
            for split in ("train", "test")
            for at in range(9)
        ],
    ),
    "npz": data.npz,
    "cifar": lambda folder: data.cifar10(folder, "binary"),
    "parquet": data.parquet,
    "tfrecord": data.tfrecord,
}


@pytest.fixture(params=MAKERS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    return choose(MAKERS[request.param](tmp_path / "data"), options=Options())


def everything(source: Source, found: DataSet) -> dict[str, list[tuple[bytes, int, str]]]:
    read: dict[str, list[tuple[bytes, int, str]]] = {}
    for part in source.parts(found):
        of_split = read.setdefault(part.split, [])
        assert part.first == len(of_split)
        for pictures in source.read(part):
            of_split += zip(pictures.images, pictures.labels.tolist(), pictures.ids, strict=True)
        assert len(of_split) == part.first + part.count
    return read


def test_a_source_is_chosen_by_what_is_in_the_folder(source: Source) -> None:
    assert choose(source.folder, source.name) == source  # type: ignore[attr-defined]
    assert source.inspect().source == source.name


def test_what_is_read_is_what_was_announced(source: Source) -> None:
    found = source.inspect()
    read = everything(source, found)
    for split, pictures in read.items():
        labels = [label for _, label, _ in pictures]
        assert np.bincount(labels, minlength=found.num_classes).tolist() == list(found.counts[split])
    ids = [picture_id for pictures in read.values() for _, _, picture_id in pictures]
    assert len(set(ids)) == len(ids)
    if not found.encoded:
        size = found.least[0] * found.least[1] * found.channels
        assert {len(image) for pictures in read.values() for image, _, _ in pictures} == {size}


def test_pictures_can_be_read_by_their_places(source: Source) -> None:
    part = next(iter(source.parts(source.inspect())))
    every = [p for batch in source.read(part) for p in zip(batch.images, batch.ids, strict=True)]
    at = np.array([1, 2, part.count - 1])
    found = list(source.read(part, at))
    assert [p for batch in found for p in zip(batch.images, batch.ids, strict=True)] == [
        every[i] for i in at
    ]
    assert np.concatenate([batch.places for batch in found]).tolist() == at.tolist()


def test_sources_and_parts_travel_to_workers(source: Source) -> None:
    found = source.inspect()
    again, parts = pickle.loads(pickle.dumps((source, list(source.parts(found)))))
    assert everything(again, found) == everything(source, found)
    assert list(source.parts(found)) == parts


def test_the_fingerprint_is_of_contents(source: Source, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    import shutil

    shutil.copytree(source.folder, copy)  # type: ignore[attr-defined]
    assert choose(copy).inspect().fingerprint == source.inspect().fingerprint


def test_pictures_that_were_checked_before_are_not_decoded_again(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = source.inspect()
    monkeypatch.setattr(picture_files, "check", None)
    options = Options(checked=found.fingerprint)
    again = choose(source.folder, source.name, options).inspect()  # type: ignore[attr-defined]
    assert replace(again, least=found.least, largest=found.largest, channels=found.channels) == found


class TestFolder:
    def test_splits_sizes_names(self, tmp_path: Path) -> None:
        found = choose(data.class_folders(tmp_path)).inspect()
        assert found.class_names == CLASSES
        assert found.counts == {"train": (4, 4, 4), "test": (4, 4, 4)}
        assert (found.least, found.largest, found.channels) == ((10, 9), (13, 11), 3)
        assert not found.one_size

    def test_one_level_of_classes(self, tmp_path: Path) -> None:
        found = choose(data.class_folders(tmp_path, splits=())).inspect()
        assert found.counts == {"train": (4, 4, 4)}

    def test_hidden_files_are_no_pictures_and_others_are_named(self, tmp_path: Path) -> None:
        data.class_folders(tmp_path)
        for name in (".DS_Store", "._0.png", "notes.txt"):
            (tmp_path / "train/cat" / name).write_text("x")
        (tmp_path / "train/.hidden").mkdir()
        found = choose(tmp_path).inspect()
        assert found.examples["train"] == 12
        assert found.notes == ("1 files are no pictures by their names: train/cat/notes.txt",)

    def test_pictures_in_deeper_folders_and_upper_case_endings(self, tmp_path: Path) -> None:
        data.class_folders(tmp_path)
        (tmp_path / "train/cat/more").mkdir()
        (tmp_path / "train/cat/0.png").rename(tmp_path / "train/cat/more/0.PNG")
        assert choose(tmp_path).inspect().examples["train"] == 12

    def test_grey_pictures_have_one_channel(self, tmp_path: Path) -> None:
        for name in CLASSES:
            (tmp_path / name).mkdir()
            for number in range(3):
                pixels = data.picture(number, channels=1)
                (tmp_path / name / f"{number}.png").write_bytes(data.encoded(pixels))
        found = choose(tmp_path).inspect()
        assert (found.channels, found.least, found.largest) == (1, (12, 10), (12, 10))

    @pytest.mark.parametrize(
        ("kind", "more"),
        [("JPEG", {}), ("MPO", {"save_all": True, "append_images": [Image.new("RGB", (50, 20))]})],
    )
    def test_a_photo_that_lies_on_its_side_is_measured_upright(
        self, tmp_path: Path, kind: str, more: dict[str, Any]
    ) -> None:
        """MPO is a JPEG file with a preview after it, as some telephones write them."""
        data.class_folders(tmp_path, splits=())
        exif = Image.Exif()
        exif[0x0112] = 6
        content = data.encoded(data.picture(1, height=20, width=50), kind, exif=exif, **more)
        (tmp_path / "cat/0.png").unlink()
        (tmp_path / "cat/side.jpg").write_bytes(content)
        assert choose(tmp_path).inspect().largest == (50, 20)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0\x10JFIF"]
    )
    def test_a_broken_picture_stops_or_is_skipped(self, tmp_path: Path, content: bytes) -> None:
        data.class_folders(tmp_path, per_class=40)
        (tmp_path / "train/dog/7.jpg").write_bytes(content)
        with pytest.raises(SourceError, match=r"train/dog/7.jpg: .*data.bad_images=skip"):
            choose(tmp_path).inspect()
        found = choose(tmp_path, options=Options(bad_images="skip", checked="any")).inspect()
        assert [each.id for each in found.skipped] == ["train/dog/7.jpg"]
        assert found.counts["train"] == (40, 39, 40)
        assert "1 pictures cannot be read" in found.notes[-1]
        with pytest.raises(
            SourceError, match=r"1 pictures \(0.4%\) cannot be read, more than data.max_bad"
        ):
            choose(tmp_path, options=Options(bad_images="skip", max_bad=0.001)).inspect()

    def test_a_truncated_photo_is_broken(self, tmp_path: Path) -> None:
        data.class_folders(tmp_path)
        file = tmp_path / "train/cat/1.jpg"
        file.write_bytes(file.read_bytes()[:-30])
        with pytest.raises(SourceError, match=r"broken: image file is truncated"):
            choose(tmp_path).inspect()

    def test_an_empty_class_is_refused(self, tmp_path: Path) -> None:
        data.class_folders(tmp_path)
        (tmp_path / "train/wolf").mkdir()
        with pytest.raises(SourceError, match=r"train/wolf: no picture in this class folder"):
            choose(tmp_path).inspect()

    def test_two_names_of_one_split_are_refused(self, tmp_path: Path) -> None:
        data.class_folders(tmp_path, splits=("train", "val", "validation"))
        with pytest.raises(SourceError, match=r"both val and validation are validation: rename one"):
            choose(tmp_path)


class TestManifest:
    def test_json_lines_without_split(self, tmp_path: Path) -> None:
        rows = [{"file_name": f"{at}.png", "label": str(at % 2 + 10)} for at in range(6)]
        found = choose(data.manifest(tmp_path, rows, "metadata.jsonl")).inspect()
        assert found.counts == {"train": (3, 3)}
        assert found.class_names == ("10", "11")

    def test_numbers_are_sorted_as_numbers(self, tmp_path: Path) -> None:
        rows = [{"path": f"{at}.png", "label": str(at)} for at in range(12)]
        assert choose(data.manifest(tmp_path, rows)).inspect().class_names == tuple(map(str, range(12)))

    def test_kaggles_label_files(self, tmp_path: Path) -> None:
        rows = [{"id": f"train/{at}.png", "label": CLASSES[at % 3]} for at in range(6)]
        data.manifest(tmp_path, rows, "trainLabels.csv")
        lines = [f"{at},{CLASSES[at % 3]}\n" for at in range(6)]
        (tmp_path / "trainLabels.csv").write_text("id,label\n" + "".join(lines))
        assert choose(tmp_path).inspect().counts == {"train": (2, 2, 2)}

    def test_one_file_a_split(self, tmp_path: Path) -> None:
        for split in ("train", "test"):
            rows = [{"path": f"{split}/{at}.png", "label": str(at % 2)} for at in range(4)]
            data.manifest(tmp_path, rows, f"{split}.csv")
        assert choose(tmp_path).inspect().examples == {"train": 4, "test": 4}

    def test_columns_by_name(self, tmp_path: Path) -> None:
        rows = [{"where": f"{at}.png", "what": CLASSES[at % 2]} for at in range(4)]
        data.manifest(tmp_path, rows)
        with pytest.raises(
            SourceError, match=r"none of the columns where, what is path, .*: name it with data.path"
        ):
            choose(tmp_path).inspect()
        options = Options(path_column="where", label_column="what")
        assert choose(tmp_path, options=options).inspect().examples == {"train": 4}

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("3.png,cat,extra", "line 4: not as many fields as the first line has"),
            ("3.png", "line 4: not as many fields as the first line has"),
            (",cat", "line 4: no path"),
            ("0.png,", "line 4: no label"),
            ("../0.png,cat", "line 4: ../0.png is not below the manifest's folder"),
            ("9.png,cat", "line 4: there is no picture 9.png"),
            ("0.png,dog", "line 4: 0.png stands in labels.csv, line 2 already"),
        ],
    )
    def test_faults(self, tmp_path: Path, line: str, message: str) -> None:
        rows = [{"path": f"{at}.png", "label": CLASSES[at % 2]} for at in range(2)]
        data.manifest(tmp_path, rows)
        with (tmp_path / "labels.csv").open("a") as file:
            file.write(line + "\n")
        with pytest.raises(SourceError, match=f"labels.csv: {message}"):
            choose(tmp_path).inspect()

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(content=st.binary(max_size=200), name=st.sampled_from(["labels.csv", "labels.jsonl"]))
    def test_any_bytes_are_a_data_set_or_one_line(self, tmp_path: Path, content: bytes, name: str) -> None:
        for file in tmp_path.iterdir():
            file.unlink()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError) as caught:
            choose(tmp_path).inspect()
        assert str(tmp_path) in str(caught.value)


class TestNpz:
    def test_keras_names(self, tmp_path: Path) -> None:
        found = choose(data.npz(tmp_path)).inspect()
        assert found.counts == {"train": (10, 10, 10), "test": (4, 4, 4)}
        assert (found.least, found.channels, found.encoded) == ((9, 8), 1, False)

    def test_medmnist_names_and_shapes(self, tmp_path: Path) -> None:
        names = ["train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"]
        labels = (np.arange(12, dtype=np.uint8) % 3)[:, None]
        colour = {
            name: np.zeros((30 if "train" in name else 12, 9, 8, 3), np.uint8)
            for name in names
            if "images" in name
        }
        found = choose(data.npz(tmp_path, names, val_labels=labels, **colour)).inspect()
        assert found.examples == {"train": 30, "validation": 12, "test": 12}
        assert found.channels == 3

    def test_labels_from_one(self, tmp_path: Path) -> None:
        labels = np.arange(30, dtype=np.int32) % 3 + 1
        found = choose(data.npz(tmp_path, y_train=labels, y_test=labels[:12])).inspect()
        assert found.class_names == ("1", "2", "3")
        assert found.counts["train"] == (10, 10, 10)
        assert found.label_offset == 1
        assert "labels begin at 1" in found.notes[0]

    def test_transposed(self, tmp_path: Path) -> None:
        folder = data.npz(tmp_path)
        found = (source := choose(folder, options=Options(orient="transpose"))).inspect()
        assert found.least == (8, 9)
        pixels = np.load(folder / "data.npz")["x_train"][0]
        first = next(iter(source.read(next(iter(source.parts(found)))))).images[0]
        assert first == pixels.T.tobytes()

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            ({"x_train": np.zeros((30, 9, 8), np.float32)}, "images of dtype float32: they must be uint8"),
            ({"x_train": np.zeros((30, 9, 8, 2), np.uint8)}, "images of shape 0 x 9 x 8 x 2"),
            ({"y_train": np.zeros(30, np.float32)}, "labels of dtype float32"),
            ({"y_train": np.zeros(29, np.uint8)}, "y_train has 29 labels, x_train 30 images"),
            ({"x_test": np.zeros((12, 7, 8), np.uint8)}, "images of several sizes"),
            ({"y_train": np.array([{}] * 30)}, "only plain arrays"),
            ({"y_train": np.full(30, 7), "y_test": np.full(12, 7)}, "1 classes with pictures"),
            ({"y_train": np.arange(30) % 3 * 2}, "label 4 is probably wrong: no example of 3; if not, set"),
        ],
    )
    def test_faults(self, tmp_path: Path, array: dict[str, np.ndarray], message: str) -> None:
        with pytest.raises(SourceError, match=message):
            choose(data.npz(tmp_path, **array)).inspect()

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        file = data.npz(tmp_path) / "data.npz"
        content = bytearray(file.read_bytes())
        content[200:260] = bytes(60)
        file.write_bytes(content)
        with pytest.raises(SourceError, match=r"data.npz: .*x_train: (broken|no NumPy array)"):
            choose(tmp_path).inspect()
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(SourceError, match=r"no NPZ file"):
            choose(tmp_path).inspect()


class TestCifar:
    @pytest.mark.parametrize("form", ["binary", "python"])
    def test_both_forms_give_the_same(self, tmp_path: Path, form: str) -> None:
        source = choose(data.cifar10(tmp_path / form, form))
        found = source.inspect()
        assert found.class_names == data.CIFAR10
        assert found.examples == {"train": 100, "test": 20}
        other = data.cifar10(tmp_path / "other", "python" if form == "binary" else "binary")
        images = [image for image, _, _ in everything(source, found)["train"]]
        others = [image for image, _, _ in everything(choose(other), choose(other).inspect())["train"]]
        assert images == others

    def test_planes_become_pixels(self, tmp_path: Path) -> None:
        data.cifar10(tmp_path, "binary")
        record = (tmp_path / "data_batch_1.bin").read_bytes()[1:3073]
        source = choose(tmp_path)
        image = everything(source, source.inspect())["train"][0][0]
        assert image[:3] == bytes([record[0], record[1024], record[2048]])

    def test_a_cut_file(self, tmp_path: Path) -> None:
        file = data.cifar10(tmp_path, "binary") / "test_batch.bin"
        file.write_bytes(file.read_bytes()[:-5])
        with pytest.raises(
            SourceError, match=r"test_batch.bin: offset 58387: 3068 bytes of a record of 3073"
        ):
            choose(tmp_path).inspect()

    def test_a_missing_file(self, tmp_path: Path) -> None:
        (data.cifar10(tmp_path, "binary") / "data_batch_4.bin").unlink()
        with pytest.raises(SourceError, match=r"data_batch_4.bin: this file of the data set is missing"):
            choose(tmp_path).inspect()

    def test_a_pickle_that_is_a_program_is_refused(self, tmp_path: Path) -> None:
        data.cifar10(tmp_path, "python")
        marker = tmp_path / "it ran"

        class Program:
            def __reduce__(self) -> tuple:
                return Path.touch, (marker,)

        (tmp_path / "data_batch_2").write_bytes(pickle.dumps({b"data": Program()}))
        with pytest.raises(SourceError, match=r"data_batch_2: no pickled arrays: .*is no array"):
            choose(tmp_path).inspect()
        assert not marker.exists()

    @pytest.mark.slow
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(st.binary(max_size=300))
    def test_any_bytes_are_one_line(self, tmp_path: Path, content: bytes) -> None:
        data.cifar10(tmp_path, "python", per_file=2)
        (tmp_path / "data_batch_1").write_bytes(content)
        with pytest.raises(SourceError, match=r"data_batch_1: "):
            choose(tmp_path).inspect()


class TestParquet:
    def test_names_come_from_the_schema(self, tmp_path: Path) -> None:
        found = choose(data.parquet(tmp_path)).inspect()
        assert found.class_names == CLASSES
        assert found.examples == {"train": 15, "test": 15}
        assert found.encoded

    def test_row_groups_are_parts(self, tmp_path: Path) -> None:
        source = choose(data.parquet(tmp_path))
        assert [part.count for part in source.parts(source.inspect())] == [4, 4, 4, 3] * 2

    def test_labels_from_one_without_names(self, tmp_path: Path) -> None:
        found = choose(data.parquet(tmp_path, names=())).inspect()
        assert found.class_names == ("1", "2", "3")

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        file = data.parquet(tmp_path) / "train-00000-of-00001.parquet"
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(SourceError, match=r"train-00000-of-00001.parquet: no Parquet file"):
            choose(tmp_path).inspect()


class TestTFRecord:
    def test_labels_from_one_with_names(self, tmp_path: Path) -> None:
        found = choose(data.tfrecord(tmp_path)).inspect()
        assert found.class_names == CLASSES
        assert found.counts == {"train": (5, 5, 5), "validation": (5, 5, 5)}

    def test_a_damaged_record(self, tmp_path: Path) -> None:
        file = data.tfrecord(tmp_path) / "train-00000-of-00001"
        content = bytearray(file.read_bytes())
        content[3000] ^= 1
        file.write_bytes(content)
        with pytest.raises(SourceError, match=r"train-00000-of-00001: record \d+: corrupted record"):
            choose(tmp_path).inspect()


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no data set is recognised here"):
        choose(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no such folder"):
        choose(tmp_path / "nothing")


def test_what_could_be_two_things_is_refused(tmp_path: Path) -> None:
    data.class_folders(tmp_path)
    data.npz(tmp_path)
    with pytest.raises(SourceError, match=r"this could be npz or folder: say which with data.source"):
        choose(tmp_path)
    assert choose(tmp_path, "npz").name == "npz"
