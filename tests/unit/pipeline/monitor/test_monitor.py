"""`mnist monitor`: real digits through a real server are no drift; inverted ones or one digit alone are."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import model_pb2

from components.image_example_gen.sources import idx
from components.shared import answers, classifier, files, image_facts, model_store
from components.shared.dataset_facts import FACTS_FILE
from components.shared.training_facts import TrainingFacts
from pipeline.monitor import drift, page
from pipeline.monitor.drift import Expected, Limits, MonitorError
from serving.client import Client
from serving.models.inference import Prediction
from serving.server.telemetry.metrics import Metrics
from serving.server.telemetry.request_log import RequestLog, RequestLogConfig
from tests.integration.serving.model_server import running
from tests.unit.components.digits import facts_of, write_examples
from tests.unit.pipeline import means_model
from trainer import features

VERSION = 1795444658
Digits = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def digits(mnist_dir: Path) -> Digits:
    """The first 2,000 test digits."""
    images = next(idx.read_images(mnist_dir / "t10k-images-idx3-ubyte", 2000))
    return images, next(idx.read_labels(mnist_dir / "t10k-labels-idx1-ubyte", 2000))


@pytest.fixture(scope="module")
def served(mnist_dir: Path, digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The versions of a model, as the Pusher leaves them."""
    root = tmp_path_factory.mktemp("run")
    train = next(idx.read_images(mnist_dir / "train-images-idx3-ubyte", 4000))
    labels = next(idx.read_labels(mnist_dir / "train-labels-idx1-ubyte", 4000))
    write_examples(root / "examples", {"train": (train, labels), "test": digits})
    folders = {split: str(root / "examples" / f"Split-{split}") for split in ("train", "test")}
    (root / "blessing").mkdir()
    found = facts_of(folders, (28, 28), 10)
    (root / "blessing" / FACTS_FILE).write_text(found.to_json())
    version = root / "serving" / "mnist" / str(VERSION)
    means_model.save(version, train, labels)
    said = classifier.load(version).of_images(digits[0])
    with answers.writing(str(root / "evaluation"), 0, 1) as writer:
        writer.write([str(number) for number in range(len(said))], digits[1].astype(np.int64), said)
    facts = TrainingFacts.gather(root / "blessing", root / "evaluation")
    files.write_text(version / model_store.TRAINING_FACTS, facts.to_json())
    return version.parent


@pytest.fixture(scope="module")
def expected(served: Path) -> Expected:
    return drift.expected(served)


Log = Callable[..., Path]


@pytest.fixture
def log(served: Path, tmp_path: Path) -> Log:
    """Writes requests and the model's answers as the server writes them."""
    model = classifier.load(served / str(VERSION))

    def write(images: np.ndarray, form: str = features.IMAGE, version: int = VERSION) -> Path:
        writer = RequestLog(RequestLogConfig(tmp_path), Metrics().log_count)
        for first in range(0, len(images), 50):
            some = images[first : first + 50]
            probabilities = model.of_images(some)
            spec = model_pb2.ModelSpec(name="mnist")
            spec.version.value = version
            outputs = {
                features.CLASSES: probabilities.argmax(axis=1),
                features.PROBABILITIES: probabilities,
            }
            writer.predict({form: as_form(some, form)}, (), Prediction(spec, outputs))
        writer.close()
        return tmp_path

    return write


def as_form(images: np.ndarray, form: str) -> np.ndarray:
    """The same images as the input of each signature."""
    if form == features.IMAGE:
        return images
    return np.array(
        [png(image) if form == features.IMAGE_BYTES else example(image) for image in images], object
    )


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def example(image: np.ndarray) -> bytes:
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()]))
    return tf.train.Example(features=tf.train.Features(feature={features.IMAGE: value})).SerializeToString()


def judge(folder: Path, expected: Expected) -> tuple[set[str], drift.Findings]:
    """The facts that drifted."""
    found = drift.compare(expected, drift.observe(folder, expected), Limits())
    return {each.fact for each in found.comparisons if each.drifted}, found


def test_real_digits_through_a_real_server_are_no_drift(
    served: Path, expected: Expected, digits: Digits, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    with (
        running(served, tmp_path, "--log-requests", str(logs)) as server,
        Client("127.0.0.1", server.grpc_port, "grpc", model="mnist") as client,
    ):
        for first in range(0, 1000, 20):
            client.predict({features.IMAGE: digits[0][first : first + 20]}, features.SIGNATURE_PIXELS)
    drifted, found = judge(logs, expected)
    assert drifted == set()
    assert not found.drifted
    assert (found.observed.requests, found.observed.images) == (50, 1000)
    probabilities = classifier.load(served / str(VERSION)).of_images(digits[0][:1000])
    classes = probabilities.argmax(axis=1)
    assert found.observed.classes.tolist() == np.bincount(classes, minlength=10).tolist()
    confidence = image_facts.unit_histogram(probabilities.max(axis=1))
    np.testing.assert_array_equal(found.observed.histograms[drift.CONFIDENCE], confidence)


@pytest.mark.parametrize("form", [features.IMAGE, features.IMAGE_BYTES, features.EXAMPLES])
def test_every_signature_s_requests_are_read(
    form: str, log: Log, expected: Expected, digits: Digits
) -> None:
    seen = drift.observe(log(digits[0][:120], form), expected)
    assert (seen.requests, seen.images, seen.damage.records) == (3, 120, 0)
    for name, histogram in image_facts.image_histograms(digits[0][:120]).items():
        np.testing.assert_array_equal(seen.histograms[name], histogram)


def test_inverted_images_are_drift(log: Log, expected: Expected, digits: Digits) -> None:
    drifted, found = judge(log(255 - digits[0][:500]), expected)
    assert drifted >= {image_facts.MEAN_INTENSITY, image_facts.INK_FRACTION, drift.CONFIDENCE}
    assert found.drifted


def test_only_sevens_are_drift(log: Log, expected: Expected, digits: Digits) -> None:
    images, labels = digits
    drifted, found = judge(log(images[labels == 7]), expected)
    assert drift.CLASSES in drifted
    assert {each.about for each in found.comparisons} == {None, 7}


def test_a_few_requests_tell_nothing(log: Log, expected: Expected, digits: Digits) -> None:
    assert judge(log(digits[0][:5]), expected)[0] == set()


def test_the_page_and_the_json_say_what_was_found(log: Log, expected: Expected, digits: Digits) -> None:
    _, found = judge(log(255 - digits[0][:200]), expected)
    values = json.loads(json.dumps(found.as_json()))
    assert values["drift"] is True
    assert values["images"] == 200
    assert {each["fact"] for each in values["facts"] if each["drift"]} >= {image_facts.MEAN_INTENSITY}
    html = page.render(found)
    assert '<h1 class="bad">Drift</h1>' in html
    assert html.count('<figure class="chart">') == 5
    assert "://" not in html
    assert "<script" not in html


def test_what_is_damaged_is_skipped_and_counted(log: Log, expected: Expected, digits: Digits) -> None:
    folder = log(digits[0][:200])
    (whole,) = folder.glob("*.tfrecord")
    content = whole.read_bytes()
    whole.write_bytes(content[:-10])
    (folder / "empty.tfrecord").write_bytes(b"")
    (folder / "unfinished.tfrecord.partial").write_bytes(content)
    with tf.io.TFRecordWriter(str(folder / "other.tfrecord")) as writer:
        writer.write(b"\xff no PredictionLog")
    seen = drift.observe(folder, expected)
    assert (seen.requests, seen.damage.files, seen.damage.records) == (3, 1, 1)


def test_requests_to_another_version_are_left_out(log: Log, expected: Expected, digits: Digits) -> None:
    folder = log(digits[0][:100], version=7)
    with pytest.raises(MonitorError, match=f"no request to version {VERSION} .* --any-version"):
        drift.observe(folder, expected)
    assert drift.observe(folder, expected, any_version=True).images == 100
    log(digits[0][:50])
    seen = drift.observe(folder, expected)
    assert (seen.images, seen.elsewhere) == (50, 2)


def test_requests_to_a_model_of_another_name_are_told_with_what_helps(
    log: Log, expected: Expected, digits: Digits
) -> None:
    folder = log(digits[0][:100])
    for any_version in (False, True):
        with pytest.raises(
            MonitorError, match="2 to 'mnist': run the server with --model-name letters"
        ) as caught:
            drift.observe(folder, dataclasses.replace(expected, model="letters"), any_version)
        assert "--any-version" not in str(caught.value)


def test_a_folder_without_logs_is_refused(tmp_path: Path, expected: Expected) -> None:
    with pytest.raises(MonitorError, match="no request log"):
        drift.observe(tmp_path, expected)


def test_the_version_s_own_folder_says_the_same(served: Path, expected: Expected) -> None:
    found = drift.expected(served / str(VERSION))
    assert (found.model, found.version) == (expected.model, expected.version) == ("mnist", VERSION)
    np.testing.assert_array_equal(found.histograms[drift.CONFIDENCE], expected.histograms[drift.CONFIDENCE])


def test_a_model_that_does_not_say_what_it_was_trained_on_is_refused(served: Path, tmp_path: Path) -> None:
    version = shutil.copytree(served / str(VERSION), tmp_path / "mnist" / "7")
    (version / model_store.TRAINING_FACTS).write_text('{"images": []}')
    with pytest.raises(MonitorError, match=r"training_facts\.json holds no facts: AttributeError"):
        drift.expected(version)
    (version / model_store.TRAINING_FACTS).unlink()
    with pytest.raises(
        MonitorError, match=r"7 does not say what it was .*; what `mnist run` pushes has them"
    ):
        drift.expected(tmp_path / "mnist")
    with pytest.raises(MonitorError, match="newest is no version of a model: its name is no number"):
        drift.expected(version.rename(tmp_path / "newest"))
    with pytest.raises(classifier.ModelError, match="there is no model"):
        drift.expected(tmp_path)
