"""`mnist data check`: what a folder is, and why it cannot be trained on."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from pipeline.cli.main import main
from tests.unit.components.image_example_gen.sources import data as datasets


def check(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["data", "check", *arguments])
    return done.exit_code, done.output


def test_it_says_what_is_there_and_what_to_do(tmp_path: Path) -> None:
    folder = datasets.class_folders(tmp_path / "my photos", per_class=12, splits=())
    code, said = check(str(folder), "--set", "data.size=32x48")
    assert code == 0
    for line in (
        f"{folder}: source folder, 36 images, 3 classes",
        "size   10 x 9 to 21 x 11 pixels, colour",
        "split  train: 27",
        "split  validation: 3, cut off from 36 for training",
        "split  test: 6, cut off from 36 for training",
        "class  2 fox: train 12",
        "reads  32 x 48 pixels x 3 channels",
        "note   gates.class_examples = 10, but the test split has 6 images in all, cut off from those for "
        "training, of 3 classes",
        f"next   mnist run --data-dir '{folder}' --set data.size=32x48 --set gates.class_examples=0",
    ):
        assert line in said.splitlines(), said


def test_photos_need_more_than_the_defaults(tmp_path: Path) -> None:
    photos = datasets.class_folders(tmp_path, per_class=12, splits=())
    wanted = (
        "made for digits: recipe fast, gates.accuracy (0.97), gates.class_accuracy (0.93); for photos take"
    )
    assert wanted in check(str(photos), "--set", "data.size=32x32")[1]
    for setting in ("data.channels=1", "trainer.recipe=residual"):
        assert wanted not in check(str(photos), "--set", "data.size=32x32", "--set", setting)[1]


def test_sizes_that_differ_need_one(tmp_path: Path) -> None:
    code, said = check(str(datasets.class_folders(tmp_path, per_class=12)))
    assert code == 2
    assert "mnist: pictures of 10 x 9 to 21 x 11 pixels: set the size" in said.splitlines()[-1]


def test_what_is_no_data_set(tmp_path: Path) -> None:
    code, said = check(str(tmp_path))
    assert (code, len(said.splitlines())) == (2, 1)
    assert said.startswith(f"mnist: {tmp_path}: no data set is recognised here")


def test_one_class_is_none(tmp_path: Path) -> None:
    rows = [{"path": f"{at}.png", "label": "cat"} for at in range(20)]
    code, said = check(str(datasets.manifest(tmp_path, rows)))
    assert code == 2
    assert "1 classes with pictures: a classifier needs two or more" in said
