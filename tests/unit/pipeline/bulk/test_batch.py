"""`mnist batch`: every image is answered as the model itself answers, in order, or nothing is written."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.image_example_gen.sources import idx
from components.shared import classifier
from pipeline.beam_config import LOCAL_BEAM_ARGS
from pipeline.bulk import chunks, inference
from tests.conftest import idx_bytes
from tests.unit.pipeline import means_model
from trainer import features
from trainer.features import ImageShape

COUNT = 9_000  # two chunks and a rest
SHAPE = ImageShape(28, 28)


@pytest.fixture(scope="module")
def images(mnist_dir: Path) -> np.ndarray:
    return next(idx.read_images(mnist_dir / "t10k-images-idx3-ubyte", COUNT))


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory, images: np.ndarray, mnist_dir: Path) -> Path:
    """A folder of versions, the newest of which is the one to ask."""
    folder = tmp_path_factory.mktemp("versions")
    labels = next(idx.read_labels(mnist_dir / "t10k-labels-idx1-ubyte", COUNT))
    means_model.save(folder / "10", images, labels)
    means_model.save(folder / "9", images[:, ::-1], labels)
    (folder / "11").mkdir()  # a push that has not come further
    return folder


@pytest.fixture(scope="module")
def expected(versions: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes and probabilities from the SavedModel itself."""
    import tensorflow as tf

    model = tf.saved_model.load(str(versions / "10"))
    answer = model.signatures["pixels"](image=tf.constant(images))
    return answer[features.CLASSES].numpy(), answer[features.PROBABILITIES].numpy()


def infer(paths: list[Path], versions: Path, output: Path, **settings: Any) -> list[dict[str, Any]]:
    model = classifier.find(versions)
    tasks = chunks.plan(paths, classifier.image_shape(model))
    inference.infer(tasks, model, output, LOCAL_BEAM_ARGS, **settings)
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_the_newest_whole_version_is_asked(versions: Path) -> None:
    assert classifier.find(versions) == versions / "10"
    assert classifier.find(versions / "9") == versions / "9"
    assert classifier.image_shape(versions / "10") == SHAPE


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_is_answered_in_order(
    suffix: str, images: np.ndarray, versions: Path, expected: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    file = tmp_path / f"images-idx3-ubyte{suffix}"
    file.write_bytes(gzip.compress(idx_bytes(images), 1) if suffix else idx_bytes(images))
    done: list[int] = []
    found = infer([file], versions, tmp_path / "out.jsonl", with_probabilities=True, progress=done.append)
    classes, probabilities = expected
    assert [line["index"] for line in found] == list(range(COUNT))
    assert {line["file"] for line in found} == {str(file)}
    assert [line["class"] for line in found] == classes.tolist()
    np.testing.assert_allclose([line["probabilities"] for line in found], probabilities, rtol=1e-5)
    best = probabilities[range(COUNT), classes]
    np.testing.assert_allclose([line["probability"] for line in found], best, rtol=1e-5)
    assert done == sorted(done)
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, "out.jsonl"]


def test_pictures_and_idx_files_keep_their_order_and_a_broken_picture_has_its_error(
    images: np.ndarray, versions: Path, expected: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(images[number]).save(folder / f"{number}.png")
    (folder / "1b.png").write_bytes((folder / "1.png").read_bytes()[:60])
    Image.new("L", (40, 40)).save(folder / "2b.PNG")  # blank
    (folder / "notes.txt").write_text("no picture")
    some = tmp_path / "some"
    some.write_bytes(idx_bytes(images[5:7]))
    found = infer([folder / "2.png", some, folder], versions, tmp_path / "out.jsonl")
    assert [Path(line["file"]).name for line in found] == [
        *("2.png", "some", "some"),
        *("0.png", "1.png", "1b.png", "2.png", "2b.PNG"),
    ]
    digits = [line.get("class") for line in found]
    of = expected[0].tolist()
    assert digits == [of[2], of[5], of[6], of[0], of[1], None, of[2], None]
    assert "PNG" in found[5]["error"]
    assert found[7]["error"] == "blank: no digit to be seen"
    assert found[0]["name"] == f"mean {digits[0]}"
    assert "probabilities" not in found[0]


def test_pictures_are_centred_as_for_the_server(images: np.ndarray, versions: Path, tmp_path: Path) -> None:
    large = 255 - np.kron(np.pad(images[0], 20), np.ones((4, 4), np.uint8))
    Image.fromarray(large).save(tmp_path / "large.png")
    (found,) = infer([tmp_path / "large.png"], versions, tmp_path / "out.jsonl")
    model = classifier.load(versions / "10")
    classes = model.of_images(model.decoded([(tmp_path / "large.png").read_bytes()])).argmax(axis=1)
    assert found["class"] == classes[0]


def test_a_picture_that_claims_to_be_absurdly_large_is_not_decoded(
    images: np.ndarray, versions: Path, tmp_path: Path
) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(header)) + b"IHDR" + header
    (tmp_path / "large.png").write_bytes(content + struct.pack(">I", zlib.crc32(b"IHDR" + header)))
    Image.fromarray(images[0]).save(tmp_path / "small.png")
    paths = [tmp_path / "large.png", tmp_path / "small.png"]
    refused, answered = infer(paths, versions, tmp_path / "out.jsonl")
    assert "20000 x 20000 pixels: over the limit" in refused["error"]
    assert "class" in answered


def test_pictures_in_memory_at_a_time_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(bytes(100))
    monkeypatch.setattr(chunks, "PICTURE_BYTES", 250)
    assert [task.counts for task in chunks.plan([tmp_path], SHAPE)] == [(2,), (2,), (1,)]


BAD: dict[str, tuple[bytes | None, str]] = {
    "truncated": (idx_bytes(np.zeros((3, 28, 28), np.uint8))[:-5], "offset 2363: truncated"),
    "labels": (idx_bytes(np.zeros(3, np.uint8)), "wrong rank 1"),
    "of another size": (idx_bytes(np.zeros((3, 20, 28), np.uint8)), "images of 20 x 28 pixels"),
    "no IDX": (b"hello, world", "offset 0: wrong magic number"),
    "broken.gz": (gzip.compress(idx_bytes(np.zeros((3, 28, 28), np.uint8)))[:-6], "truncated gzip"),
    "empty folder": (None, "no PNG, JPEG, WEBP, BMP or GIF file in this folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_anything_is_asked(name: str, tmp_path: Path) -> None:
    content, reason = BAD[name]
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((chunks.InputError, idx.IdxError), match=reason) as caught:
        chunks.plan([tmp_path / name], SHAPE)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(classifier.ModelError, match="there is no model"):
        classifier.find(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\xff\xff")
    with pytest.raises(classifier.ModelError, match="broken"):
        classifier.image_shape(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(classifier.ModelError, match="no signature 'pixels'"):
        classifier.image_shape(tmp_path)


def test_a_file_that_shrinks_meanwhile_leaves_the_old_output(
    images: np.ndarray, versions: Path, tmp_path: Path
) -> None:
    file, output = tmp_path / "images", tmp_path / "out" / "answers.jsonl"
    output.parent.mkdir()
    output.write_text("old")
    file.write_bytes(idx_bytes(images))
    tasks = chunks.plan([file], SHAPE)
    file.write_bytes(idx_bytes(images[:10]))
    with pytest.raises(inference.InferenceError):
        inference.infer(tasks, versions / "10", output, LOCAL_BEAM_ARGS)
    assert output.read_text() == "old"
    assert list(output.parent.iterdir()) == [output]


def test_the_command(images: np.ndarray, versions: Path, tmp_path: Path) -> None:
    some, output = tmp_path / "some", tmp_path / "out.jsonl"
    some.write_bytes(idx_bytes(images[:10]))
    command = [sys.executable, "-c", "from pipeline.cli.main import main; main()", "batch"]
    command += ["--root", str(tmp_path / "root"), "-o", str(output)]
    without = subprocess.run([*command, str(some)], capture_output=True, text=True, timeout=120)
    assert without.returncode == 2
    assert without.stderr.count("\n") == 1
    assert "there is no model" in without.stderr
    assert not output.exists()
    assert not (tmp_path / "root").exists()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    command += ["--model", str(versions), str(some), str(tmp_path / "broken.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("11 images in ")
    assert done.stderr == f"mnist: 1 pictures could not be read: see `error` in {output}\n"
    assert len(output.read_text().splitlines()) == 11
