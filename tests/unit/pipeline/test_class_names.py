"""`data.names`: what may be in the file, and what is made of class folders, manifests and numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.image_example_gen.sources import SourceError
from pipeline import class_names, resolve
from pipeline.config import ConfigError, PipelineConfig, with_settings

IMAGENET = {str(label): [f"n{label:08d}", name] for label, name in enumerate(["tench", "crane", "crane"])}


@pytest.mark.parametrize(
    ("text", "ids", "names"),
    [
        ("zero\n one \n", ("zero", "one"), ("zero", "one")),
        ('["zero", "one"]', ("zero", "one"), ("zero", "one")),
        (
            json.dumps(IMAGENET),
            ("n00000000", "n00000001", "n00000002"),
            ("tench", "crane", "crane"),
        ),
    ],
)
def test_the_forms_of_a_file(text: str, ids: tuple[str], names: tuple[str], tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text)
    assert class_names.read(tmp_path / "names") == (ids, names)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"No such file or directory"),
        (b"\xff\xfe", r"this is no text in UTF-8"),
        (b'{"0": ', r"Expecting value"),
        (
            b'{"0": ["n1", "a"], "2": ["n2", "b"]}',
            r'this is no list of names, and not \{"0": \["ID", "NAME"',
        ),
        (b"[1, 2]", r"this is no list of names"),
        (b"a\n\nb", r"class 1 has no name"),
        (b"a", r"1 names: a classifier needs two or more"),
    ],
)
def test_what_is_no_such_file_is_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "names").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^data.names={tmp_path}/names: {message}") as caught:
        class_names.read(tmp_path / "names")
    assert "\n" not in str(caught.value)


def pictures(folder: Path, *classes: str) -> Path:
    for shade, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for at in range(30):
            Image.new("L", (8, 8), 9 * at + shade).save(folder / name / f"{at}.png")
    return folder


def config(names: Path | None, *settings: str) -> PipelineConfig:
    given = [f"data.names={names}"] if names else []
    return with_settings(PipelineConfig(), [*given, "gates.class_examples=1", *settings])


@pytest.mark.slow
def test_some_class_folders_of_many_get_their_own_labels_and_names(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(json.dumps(IMAGENET))
    folder = pictures(tmp_path / "photos", "n00000000", "n00000002")
    found = resolve.with_facts(config(tmp_path / "index.json"), folder).data
    assert (found.num_classes, found.class_names) == (3, ("tench", "crane", "crane"))
    # The node reads them again from what it is told.
    assert resolve.inspect(found, folder).counts == {"train": (30, 0, 30)}
    assert found.options()["class_ids"] == ("n00000000", "n00000001", "n00000002")
    # Without the file, as the folders say.
    assert resolve.with_facts(config(None), folder).data.class_names == ("n00000000", "n00000002")


@pytest.mark.slow
def test_as_many_names_as_class_folders_rename_them(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("Frosch\nSchiff\n")
    folder = pictures(tmp_path / "photos", "frog", "ship")
    assert resolve.with_facts(config(tmp_path / "names"), folder).data.class_names == ("Frosch", "Schiff")
    (tmp_path / "names").write_text("Frosch\nSchiff\nHund\n")
    with pytest.raises(
        SourceError, match=r"2 classes, frog, ship, which are not those of data.names: 3, Fr"
    ):
        resolve.with_facts(config(tmp_path / "names"), folder)
    with pytest.raises(ConfigError, match=r"has 3 names and data.num_classes=2"):
        resolve.with_facts(config(tmp_path / "names", "data.num_classes=2"), folder)


def test_numbers_in_a_manifest_are_places_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("zero\none\ntwo\n")
    folder = pictures(tmp_path / "photos", "images/a", "images/b")
    rows = [f"images/{name}/{at}.png,{label}" for name, label in (("a", 0), ("b", 2)) for at in range(30)]
    (folder / "train.csv").write_text("\n".join(["path,label", *rows]))
    found = resolve.inspect(config(tmp_path / "names", "data.source=manifest").data, folder)
    assert (found.class_names, found.counts) == (("zero", "one", "two"), {"train": (30, 0, 30)})


def test_digits_in_idx_files_have_names_too(tiny_mnist_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("\n".join("abcdefghij"))
    assert resolve.with_facts(config(tmp_path / "names"), tiny_mnist_dir).data.class_names[9] == "j"
    (tmp_path / "names").write_text("\n".join("abcde"))
    with pytest.raises(
        SourceError,
        match=r"-labels-idx1-ubyte: .*label 5 is not in the range 0…4: data.names has 5 names, "
        "the data have 10 classes, 0…9$",
    ):
        resolve.with_facts(config(tmp_path / "names"), tiny_mnist_dir)


def test_fewer_names_than_labels_are_named_with_the_labels(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("one\ntwo\n")
    images, labels = np.zeros((30, 4, 4), np.uint8), np.arange(30) % 2 + 1
    np.savez(tmp_path / "data.npz", x_train=images, y_train=labels)
    message = (
        r"data.npz.*: label 2 is not in the range 0…1: data.names has 2 names, the data have 2 classes, "
        "1…2; data.label_offset=1 makes the first of them the first class"
    )
    with pytest.raises(SourceError, match=message):
        resolve.inspect(config(tmp_path / "names").data, tmp_path)
    found = resolve.inspect(config(tmp_path / "names", "data.label_offset=1").data, tmp_path)
    assert found.class_names == ("one", "two")


def test_a_network_of_keras_has_the_names_that_keras_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = pictures(tmp_path / "photos", "n00000000", "n00000002")
    wanted = config(None, "trainer.recipe=pretrained", "trainer.base=MobileNet")
    # Nothing is fetched: without Keras's file the classes have the names of their folders.
    assert resolve.with_names(wanted) == wanted
    (tmp_path / class_names.IMAGENET).parent.mkdir(parents=True)
    (tmp_path / class_names.IMAGENET).write_text(json.dumps(IMAGENET))
    found = resolve.with_names(wanted).data
    assert resolve.inspect(found, folder).class_names == ("tench", "crane", "crane")
    retrained = config(None, "trainer.recipe=retrain", "trainer.base=MobileNet")
    assert resolve.with_names(retrained) == retrained
