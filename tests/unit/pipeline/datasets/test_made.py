"""Data sets that are made: what is in them, the same each time, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFont

from components.image_example_gen.sources import Options, choose, idx
from pipeline.cli.data import data
from pipeline.datasets import made
from pipeline.datasets.made import Made, MakeError, idx_files, letters, mnist_m


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Forty digits, which are noise."""
    folder = tmp_path / "source"
    folder.mkdir()
    random = np.random.default_rng(7)
    for split, count in (("train", 30), ("t10k", 10)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        idx_files.write(folder / f"{split}-images-idx3-ubyte", images.shape, [images])
        idx_files.write(
            folder / f"{split}-labels-idx1-ubyte", (count,), [np.arange(count).astype(np.uint8) % 10]
        )
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def few_letters(folder: Path) -> Any:
    return letters.make(folder, train=4, validation=1, test=2)


@pytest.mark.slow
def test_letters_are_pictures_of_many_sizes_on_any_ground(tmp_path: Path) -> None:
    folder, _ = made.make("letters", tmp_path, Path, Made(few_letters))
    assert len(list(folder.rglob("*.png"))) == 73
    with pytest.raises(Exception, match=r"data.bad_images=skip"):
        choose(folder).inspect()
    found = choose(folder, options=Options(bad_images="skip", max_bad=0.1)).inspect()
    assert found.class_names == tuple("ABCDEFGHIJ")
    assert found.counts == {"train": (4,) * 10, "validation": (1,) * 10, "test": (2,) * 10}
    assert found.channels == 1
    assert found.least[0] >= 24
    assert found.largest[0] <= 96
    assert not found.one_size
    assert {each.id for each in found.skipped} == {
        "train/A/broken-empty.png",
        "train/E/broken-truncated.png",
        "test/J/broken-text.png",
    }
    grounds = []
    for path in sorted(folder.glob("train/*/0*.png")):
        pixels = np.asarray(Image.open(path)).astype(int)
        grounds.append(pixels[0, 0] < pixels[pixels.shape[0] // 2].mean())
    assert {bool(dark) for dark in grounds} == {True, False}


def test_broken_letters_are_fewer_than_a_run_allows() -> None:
    all_of_them = len(letters.CLASSES) * (letters.TRAIN + letters.VALIDATION + letters.TEST)
    assert len(letters.BROKEN) / all_of_them < Options().max_bad


def test_fonts_are_those_with_letters_each_once(tmp_path: Path) -> None:
    own = letters.find_fonts(tmp_path)
    names = [path.name for path in own]
    assert {"DejaVuSans.ttf", "STIXGeneral.ttf", "cmr10.ttf"} <= set(names)
    assert not {"LastResortHE-Regular.ttf", "cmsy10.ttf", "cmex10.ttf", "STIXSizOneSymReg.ttf"} & set(names)
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies/Other.ttf").write_bytes(own[0].read_bytes())
    (tmp_path / "copies/broken.ttf").write_bytes(b"no font")
    assert letters.find_fonts(tmp_path) == own


def test_a_family_of_fonts_is_in_one_split(tmp_path: Path) -> None:
    fonts = letters.find_fonts(tmp_path)
    found = letters.split_fonts(fonts)
    assert sorted(font for chosen in found.values() for font in chosen) == sorted(fonts)
    families = {split: {ImageFont.truetype(font).getname()[0] for font in found[split]} for split in found}
    assert {split: len(chosen) for split, chosen in families.items()} == {
        "train": 7,
        "validation": 1,
        "test": 2,
    }
    assert len(set.union(*families.values())) == 10
    # Whatever order they come in, a split has the same.
    again = letters.split_fonts(fonts[::-1])
    assert {split: set(chosen) for split, chosen in again.items()} == {
        split: set(chosen) for split, chosen in found.items()
    }


def test_digits_on_photos_have_three_channels_and_the_digit_in_the_middle(
    tmp_path: Path, mnist: Path
) -> None:
    folder, _ = made.make("mnist-m", tmp_path, lambda: mnist)
    found = choose(folder).inspect()
    assert (found.source, found.largest, found.channels) == ("idx", (32, 32), 3)
    assert found.examples == {"train": 30, "test": 10}
    photo = np.full((40, 40, 3), (10, 100, 200), np.uint8)
    (image,) = mnist_m.blended(np.full((1, 28, 28), 255, np.uint8), [photo], np.random.default_rng(0))
    assert image[0, 0].tolist() == [10, 100, 200]
    assert image[2, 2].tolist() == image[29, 29].tolist() == [245, 155, 55]
    assert image[30, 30].tolist() == [10, 100, 200]


def test_small_digits_are_all_of_scikit_learns(tmp_path: Path) -> None:
    folder, _ = made.make("digits-8", tmp_path, Path)
    found = choose(folder).inspect()
    assert (found.largest, found.channels, found.examples) == ((8, 8), 1, {"train": 1797})
    images = next(idx.read_images(folder / "train-images-idx3-ubyte", 2000))
    assert (images.min(), images.max()) == (0, 255)
    assert min(found.counts["train"]) == 174


def test_transposed_digits_become_upright_and_their_labels_begin_at_0(tmp_path: Path, mnist: Path) -> None:
    folder, _ = made.make("emnist-like", tmp_path, lambda: mnist)
    options = Options(orient="transpose")
    found = choose(folder, options=options).inspect()
    assert found.label_offset == 1
    assert found.class_names == tuple("0123456789")
    assert any("labels begin at 1" in note for note in found.notes)
    original = choose(mnist)
    for ours, theirs in zip(
        choose(folder, options=options).parts(found), original.parts(original.inspect()), strict=True
    ):
        (one,), (other,) = choose(folder, options=options).read(ours), original.read(theirs)
        assert (one.images, one.labels.tolist()) == (other.images, other.labels.tolist())


@pytest.mark.parametrize("name", ["letters", "mnist-m", "digits-8", "emnist-like"])
def test_each_is_the_same_every_time_and_a_second_call_does_nothing(
    tmp_path: Path, mnist: Path, name: str
) -> None:
    maker = Made(few_letters) if name == "letters" else None
    first, new = made.make(name, tmp_path / "one", lambda: mnist, maker)
    other, _ = made.make(name, tmp_path / "two", lambda: mnist, maker)
    assert new
    assert contents(first) == contents(other)
    before = (first / made.MARK).stat().st_mtime_ns

    def fails(*_: object) -> Any:
        raise AssertionError("made again")

    again, new = made.make(name, tmp_path / "one", lambda: mnist, Made(fails))
    assert (again, new) == (first, False)
    assert (first / made.MARK).stat().st_mtime_ns == before


def test_nothing_is_left_of_one_that_failed(tmp_path: Path) -> None:
    def breaks(folder: Path) -> Any:
        (folder / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        made.make("letters", tmp_path / "data", Path, Made(breaks))
    assert not list((tmp_path / "data").iterdir())


def test_a_folder_of_that_name_that_holds_something_else_stays(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/mine").write_text("x")
    with pytest.raises(
        MakeError, match=r"letters is there, and this version did not make it: move it away"
    ):
        made.make("letters", tmp_path, Path)
    assert (tmp_path / "letters/mine").read_text() == "x"
    (tmp_path / "letters" / made.MARK).write_text(json.dumps({"name": "letters", "version": 0}))
    with pytest.raises(MakeError, match="this version"):
        made.make("letters", tmp_path, Path)


def test_the_command_says_where_it_is_and_what_to_run(tmp_path: Path) -> None:
    for said in ("made", "there already"):
        done = CliRunner().invoke(data, ["make", "digits-8", "--dest", str(tmp_path)])
        assert done.exit_code == 0
        assert done.output.startswith(
            f"digits-8: {said}, in {tmp_path}/digits-8\nnext   mnist run --data-dir"
        )
    unknown = CliRunner().invoke(data, ["make", "numbers", "--dest", str(tmp_path)])
    assert unknown.exit_code == 2


def test_what_is_written_must_be_what_was_announced(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 items, 2 expected"):
        idx_files.write(tmp_path / "x", (2, 3), [np.zeros((1, 3), np.uint8)])
    with pytest.raises(ValueError, match="expected, not int64"):
        idx_files.write(tmp_path / "x", (1, 3), [np.zeros((1, 3), np.int64)])  # type: ignore[list-item]
