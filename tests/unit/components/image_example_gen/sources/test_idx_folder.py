"""IDX folders beyond MNIST's four files: colours, EMNIST, QMNIST, labels that do not begin at 0."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from components.image_example_gen.sources import DataSet, Options, SourceError, choose
from tests.conftest import idx_bytes

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 5, 4), np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3


def pair(
    folder: Path, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS, stem: str = "train"
) -> Path:
    rank = images.ndim
    (folder / f"{stem}-images-idx{rank}-ubyte").write_bytes(idx_bytes(images))
    (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return folder


def read(folder: Path, **options: object) -> tuple[DataSet, dict[str, tuple[list[bytes], list[int]]]]:
    """What the folder is, and the images and labels of each split."""
    source = choose(folder, options=Options(**options))  # type: ignore[arg-type]
    found = source.inspect()
    content: dict[str, tuple[list[bytes], list[int]]] = {}
    for part in source.parts(found):
        images, labels = content.setdefault(part.split, ([], []))
        for some in source.read(part):
            images += some.images
            labels += some.labels.tolist()
    return found, content


@pytest.mark.parametrize("channels", [1, 3])
def test_rank_4_is_images_with_channels(tmp_path: Path, channels: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (12, 5, 4, channels), np.uint8)
    found, content = read(pair(tmp_path, images))
    assert (found.largest, found.channels, found.encoded) == ((5, 4), channels, False)
    assert content["train"] == ([image.tobytes() for image in images], LABELS.tolist())


def test_two_channels_are_none_of_an_image(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"offset 16: 2 channels: there must be 1 or 3"):
        read(pair(tmp_path, np.zeros((12, 5, 4, 2), np.uint8)))


def test_emnists_names_labels_and_characters(tmp_path: Path) -> None:
    pair(tmp_path, labels=LABELS + np.uint8(1), stem="emnist-letters-train")
    pair(tmp_path, labels=LABELS + np.uint8(1), stem="emnist-letters-test")
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n")
    found, content = read(tmp_path, orient="transpose")
    assert found.class_names == ("Aa", "Bb", "Cc")
    assert (found.label_offset, found.largest) == (1, (4, 5))
    assert found.counts == {"train": (4, 4, 4), "test": (4, 4, 4)}
    assert content["test"] == ([image.T.tobytes() for image in IMAGES], LABELS.tolist())
    assert "labels begin at 1: 1 is taken off each of them (data.label_offset)" in found.notes


def test_qmnists_label_files_count_by_their_first_column(tmp_path: Path) -> None:
    rows = np.zeros((12, 8), ">i4")
    rows[:, 0], rows[:, 1:] = LABELS, 4711
    header = bytes((0, 0, 0x0C, 2)) + np.array([12, 8], ">u4").tobytes()
    (tmp_path / "qmnist-train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(IMAGES)))
    (tmp_path / "qmnist-train-labels-idx2-int.gz").write_bytes(gzip.compress(header + rows.tobytes()))
    found, content = read(tmp_path)
    assert content["train"] == ([image.tobytes() for image in IMAGES], LABELS.tolist())
    assert found.num_classes == 3


def test_zero_bytes_behind_a_gzip_stream_are_no_garbage(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(IMAGES)) + bytes(70_000))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS))
    assert read(tmp_path)[1]["train"][1] == LABELS.tolist()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(IMAGES)) + b"\0\0\1")
    with pytest.raises(SourceError, match="trailing garbage"):
        read(tmp_path)


def test_several_pairs_of_a_split_are_one_after_the_other(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"train-images-{number}-idx3-ubyte").write_bytes(idx_bytes(IMAGES + np.uint8(number)))
        (tmp_path / f"train-labels-{number}-idx1-ubyte").write_bytes(idx_bytes(LABELS))
    found, content = read(tmp_path)
    assert found.counts == {"train": (8, 8, 8)}
    assert content["train"][0] == [image.tobytes() for n in (1, 2) for image in IMAGES + np.uint8(n)]


def test_a_gap_is_refused_until_the_number_of_classes_is_given_and_then_announced(tmp_path: Path) -> None:
    pair(tmp_path, labels=np.array([0, 2] * 6, np.uint8))
    with pytest.raises(SourceError, match=r"data.num_classes"):
        read(tmp_path)
    found, content = read(tmp_path, num_classes=3)
    assert found.counts == {"train": (6, 0, 6)}
    assert found.absent == (1,)
    assert "no example of class 1 in any split" in found.notes
    assert content["train"][1] == [0, 2] * 6


def test_an_offset_that_is_given(tmp_path: Path) -> None:
    pair(tmp_path, labels=LABELS + np.uint8(5))
    found, content = read(tmp_path, label_offset=5)
    assert found.class_names == ("5", "6", "7")
    assert content["train"][1] == LABELS.tolist()
    with pytest.raises(SourceError, match=r"label 5 is below data.label_offset = 6"):
        read(tmp_path, label_offset=6)


@pytest.mark.parametrize(
    ("orient", "turned"),
    [
        ("transpose", lambda image: image.T),
        ("rotate90", lambda image: np.rot90(image, -1)),
        ("rotate180", lambda image: np.rot90(image, 2)),
        ("rotate270", lambda image: np.rot90(image, 1)),
        ("mirror", lambda image: image[:, ::-1]),
    ],
)
def test_images_can_be_turned(tmp_path: Path, orient: str, turned: object) -> None:
    _, content = read(pair(tmp_path), orient=orient)
    assert content["train"][0] == [turned(image).tobytes() for image in IMAGES]  # type: ignore[operator]
