"""ServingValidator: a real server answers with a candidate, or the candidate is not blessed."""

from __future__ import annotations

import errno
import json
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Never

import numpy as np
import pytest
import tensorflow as tf
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components.image_example_gen.sources import idx
from components.pusher.executor import Executor as Pusher
from components.serving_validator import checks, executor, tied
from components.serving_validator.executor import Executor
from components.shared import classifier, names
from serving.client import Answer, Client
from serving.protocol.errors import Code, ServingError
from tests.unit.components.training import training
from trainer import features, pictures, warmup
from trainer.export_outputs import ExportedAs, PredictOutput
from trainer.features import ImageInput, ImageShape

CLASSES = 10
EXPORTS = {  # as a model function's export_outputs
    features.SIGNATURE_CLASSIFY: ExportedAs(PredictOutput.method, "inputs"),
    "embed": ExportedAs(PredictOutput.method, features.EXAMPLES),
}


class Candidate(tf.Module):
    """A network of one layer with the signatures; each can be made to fail in its own way."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self._weights = tf.Variable(np.random.default_rng(0).normal(size=(784, CLASSES)).astype(np.float32))
        self._fault = fault

    def _logits(self, pixels: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.reshape(pixels, [-1, 784]), tf.float32) / 255 @ self._weights

    def _answer(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self._logits(pixels)
        if self._fault == "random":
            logits += tf.random.uniform(tf.shape(logits))
        outputs = {features.CLASSES: tf.argmax(logits, 1), features.PROBABILITIES: tf.nn.softmax(logits)}
        if self._fault == "no probabilities":
            del outputs[features.PROBABILITIES]
        return outputs

    def _pixels(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answer(image)

    def _floats(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answer(tf.cast(tf.round(image * 255), tf.uint8))

    def _files(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        if self._fault == "wrong decoder":
            return self._answer(tf.map_fn(tf.io.decode_bmp, image_bytes, fn_output_signature=tf.uint8))
        return self._answer(pictures.decode_files(image_bytes, ImageShape(28, 28), "stretch"))

    def _decode(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = pictures.decode_files(image_bytes, ImageShape(28, 28), "stretch")[..., 0]
        names = tf.as_string(tf.range(CLASSES))
        outputs = {features.IMAGE: images, features.NAMES: tf.tile(names[None], [tf.shape(images)[0], 1])}
        if self._fault == "no names":
            del outputs[features.NAMES]
        return outputs

    def _examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answer(self._pixels_of(examples))

    def _pixels_of(self, examples: tf.Tensor) -> tf.Tensor:
        spec = {features.IMAGE: tf.io.FixedLenFeature([], tf.string)}
        return tf.io.decode_raw(tf.io.parse_example(examples, spec)[features.IMAGE], tf.uint8)

    def _classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = tf.nn.softmax(self._logits(self._pixels_of(inputs)))
        names = tf.tile(tf.as_string(tf.range(CLASSES))[None], [tf.shape(scores)[0], 1])
        return {features.CLASSES: names, features.SCORES: scores}

    def _embed(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"vector": self._logits(self._pixels_of(examples))}

    def save(self, folder: Path) -> None:
        strings = {"shape": [None], "dtype": tf.string}
        specs = {
            features.SIGNATURE_PIXELS: (
                self._pixels,
                tf.TensorSpec([None, 28, 28], tf.uint8, features.IMAGE),
            ),
            features.SIGNATURE_IMAGE_BYTES: (
                self._files,
                tf.TensorSpec(**strings, name=features.IMAGE_BYTES),
            ),
            features.SIGNATURE_DECODE: (
                self._decode,
                tf.TensorSpec(**strings, name=features.IMAGE_BYTES),
            ),
            features.SIGNATURE_FLOATS: (
                self._floats,
                tf.TensorSpec([None, 28, 28, 1], tf.float32, features.IMAGE),
            ),
            features.SIGNATURE_EXAMPLES: (self._examples, tf.TensorSpec(**strings, name=features.EXAMPLES)),
            features.SIGNATURE_CLASSIFY: (self._classify, tf.TensorSpec(**strings, name="inputs")),
            "embed": (self._embed, tf.TensorSpec(**strings, name=features.EXAMPLES)),
        }
        if self._fault == "no pixels":
            del specs[features.SIGNATURE_PIXELS]
        tf.saved_model.save(
            self,
            str(folder),
            signatures={
                name: tf.function(function).get_concrete_function(spec)
                for name, (function, spec) in specs.items()
            },
        )
        warmup.write(str(folder), ImageInput(ImageShape(28, 28)), EXPORTS)


@pytest.fixture(scope="session")
def examples(tiny_mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> standard_artifacts.Examples:
    """The first 40 test digits as ImageExampleGen writes them."""
    artifact = standard_artifacts.Examples()
    artifact.uri = str(tmp_path_factory.mktemp("examples"))
    artifact.split_names = '["test"]'
    folder = Path(artifact.uri) / "Split-test"
    folder.mkdir()
    images = next(idx.read_images(tiny_mnist_dir / "t10k-images-idx3-ubyte", 40))
    with tf.io.TFRecordWriter(str(folder / "data-00000-of-00001.gz"), "GZIP") as writer:
        for image in images:
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()]))
            example = tf.train.Example(features=tf.train.Features(feature={features.IMAGE: feature}))
            writer.write(example.SerializeToString())
    return artifact


@pytest.fixture
def validate(
    examples: standard_artifacts.Examples, tmp_path: Path
) -> Callable[..., standard_artifacts.InfraBlessing]:
    """Validates the model below tmp_path/model."""

    def run(**properties: object) -> standard_artifacts.InfraBlessing:
        blessing = standard_artifacts.InfraBlessing()
        blessing.uri = str(tmp_path / "infra_blessing")
        Executor().Do(
            {"model": [model_artifact(tmp_path)], "examples": [examples]},
            {"blessing": [blessing]},
            {"split": "test", "num_examples": 20, "latency_budget_ms": 5_000.0, "server_binary": ""}
            | properties,
        )
        return blessing

    return run


def model_artifact(tmp_path: Path) -> standard_artifacts.Model:
    model = standard_artifacts.Model()
    model.uri = str(tmp_path / "model")
    return model


def model_blessing(blessed: bool) -> standard_artifacts.ModelBlessing:
    blessing = standard_artifacts.ModelBlessing()
    blessing.set_int_custom_property("blessed", int(blessed))
    return blessing


def model_dir(tmp_path: Path) -> Path:
    return tmp_path / "model" / "Format-Serving"


def reason(blessing: standard_artifacts.InfraBlessing) -> str:
    """The reason of a refusal, found alike in the property and the report."""
    report = json.loads((Path(blessing.uri) / names.SERVING_VALIDATOR_FILE).read_text())
    assert blessing.get_int_custom_property("blessed") == int(report["blessed"]) == 0
    assert (Path(blessing.uri) / executor.NOT_BLESSED_FILE).exists()
    assert not (Path(blessing.uri) / executor.BLESSED_FILE).exists()
    text = blessing.get_string_custom_property(names.REASON)
    assert text == report["reason"]
    assert "\n" not in text
    return text


def is_pushed(tmp_path: Path, blessing: standard_artifacts.InfraBlessing) -> bool:
    """Whether Pusher takes a model with this InfraBlessing."""
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(tmp_path / "pushed")
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(tmp_path / "served"))
    )
    baseline = standard_artifacts.Model()
    baseline.set_string_custom_property(names.REASON, "nothing is in production yet")
    Pusher().Do(
        {
            "baseline_model": [baseline],
            "model": [model_artifact(tmp_path)],
            "model_blessing": [model_blessing(True)],
            "infra_blessing": [blessing],
        }
        | training(tmp_path),
        {"pushed_model": [pushed]},
        {"push_destination": proto_utils.proto_to_json(destination)},
    )
    versions = [path for path in (tmp_path / "served").glob("*") if path.name.isdigit()]
    assert bool(versions) == bool(pushed.get_int_custom_property("pushed"))
    return bool(versions)


def test_a_good_model_is_blessed_and_pushed(
    validate: Callable[..., standard_artifacts.InfraBlessing], tmp_path: Path
) -> None:
    Candidate().save(model_dir(tmp_path))
    blessing = validate()
    report = json.loads((Path(blessing.uri) / names.SERVING_VALIDATOR_FILE).read_text())
    assert report["blessed"], report["reason"]
    assert blessing.get_int_custom_property("blessed") == 1
    assert (Path(blessing.uri) / executor.BLESSED_FILE).exists()
    assert report["examples"] == 20
    assert report["warmup_requests"] == 14
    assert set(report["latency_ms"]) == {"rest", "grpc"}
    assert all(0 < taken < 5_000 for taken in report["latency_ms"].values())
    assert is_pushed(tmp_path, blessing)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("wrong decoder", "signature serving_default fails: .*image"),
        ("no pixels", "signature pixels is missing; there are classify, decode, embed, examples, floats"),
        ("no probabilities", "has no output probabilities"),
        ("no names", "signature decode has no output names"),
        ("random", "differs by .* from the model's own|classes are not the model's"),
    ],
)
def test_a_broken_signature_is_named_and_the_model_is_not_pushed(
    validate: Callable[..., standard_artifacts.InfraBlessing], tmp_path: Path, fault: str, why: str
) -> None:
    Candidate(fault).save(model_dir(tmp_path))
    blessing = validate()
    assert re.search(why, reason(blessing)), reason(blessing)
    assert not is_pushed(tmp_path, blessing)


def test_a_model_that_fails_its_own_warmup_is_refused(
    validate: Callable[..., standard_artifacts.InfraBlessing], tmp_path: Path
) -> None:
    Candidate().save(model_dir(tmp_path))
    warmup.write(str(model_dir(tmp_path)), ImageInput(ImageShape(27, 28)), EXPORTS)
    assert "the server cannot load the model" in reason(validate())


def test_warmup_requests_are_wanted(
    validate: Callable[..., standard_artifacts.InfraBlessing], tmp_path: Path
) -> None:
    Candidate().save(model_dir(tmp_path))
    file = model_dir(tmp_path) / warmup.WARMUP_FILE
    file.write_bytes(file.read_bytes()[:100])
    assert "warm-up requests cannot be read" in reason(validate())
    file.write_bytes(b"")
    assert "no warm-up request is for signature classify" in reason(validate())
    file.unlink()
    assert "there are no warm-up requests" in reason(validate())


def test_damaged_weights_are_refused(
    validate: Callable[..., standard_artifacts.InfraBlessing], tmp_path: Path
) -> None:
    Candidate().save(model_dir(tmp_path))
    (data,) = (model_dir(tmp_path) / "variables").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:200])
    assert "the model does not load" in reason(validate())


def test_a_slow_machine_fails_the_node_and_is_no_verdict(
    validate: Callable[..., standard_artifacts.InfraBlessing], tmp_path: Path
) -> None:
    Candidate().save(model_dir(tmp_path))
    with pytest.raises(checks.MachineError, match=r"over the budget of 0.001 ms: run again"):
        validate(latency_budget_ms=0.001)
    assert not (tmp_path / "infra_blessing").exists()


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_configured_server_is_started_as_tensorflow_serving_is(
    validate: Callable[..., standard_artifacts.InfraBlessing], tmp_path: Path
) -> None:
    Candidate().save(model_dir(tmp_path))
    # The real binary is not to be had here: this one takes its flags, and serves by the project's server.
    binary = script(
        tmp_path / "tensorflow_model_server",
        f"""#!{sys.executable}
import argparse, os, sys
parser = argparse.ArgumentParser()
for flag in ("port", "rest_api_port", "model_name", "model_base_path"):
    parser.add_argument("--" + flag, required=True)
flags = parser.parse_args()
open({str(tmp_path / "started")!r}, "w").close()
os.execv(sys.executable, [
    sys.executable, "-m", "serving", "--port", flags.port, "--rest-port", flags.rest_api_port,
    "--model-name", flags.model_name, "--model-dir", flags.model_base_path,
])
""",
    )
    assert validate(server_binary=binary).get_int_custom_property("blessed") == 1
    assert (tmp_path / "started").exists()


def test_a_server_that_dies_is_told_with_its_last_words(
    validate: Callable[..., standard_artifacts.InfraBlessing], tmp_path: Path
) -> None:
    Candidate().save(model_dir(tmp_path))
    binary = script(tmp_path / "server", "#!/bin/sh\necho some noise\necho no space left >&2\nexit 3\n")
    with pytest.raises(checks.MachineError, match=r"^the server ended with code 3: no space left$"):
        validate(server_binary=binary)
    assert not (tmp_path / "infra_blessing").exists(), "the next run would take a verdict from the cache"


@pytest.mark.parametrize(
    ("error", "of_machine"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (MemoryError(), True),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
        (OSError("SavedModel file does not exist at: nowhere"), False),
        (tf.errors.InvalidArgumentError(None, None, "wrong shape"), False),
    ],
)
def test_what_the_machine_does_is_told_from_what_the_model_does(error: Exception, of_machine: bool) -> None:
    assert classifier.is_fault_of_machine(error) == of_machine


@pytest.mark.parametrize(
    ("code", "kind"),
    [(Code.UNAVAILABLE, checks.MachineError), (Code.INVALID_ARGUMENT, checks.RefusedError)],
)
def test_a_server_that_goes_away_is_no_verdict(code: Code, kind: type[Exception]) -> None:
    class Gone(Client):
        def predict(self, *_: object, **__: object) -> Never:
            raise ServingError(code, "what it says")

    with Gone("127.0.0.1", 1, "rest", model="m") as client, pytest.raises(kind, match="what it says"):
        checks.check_answers(client, "rest", "pixels", {}, {})


@pytest.mark.parametrize("wrong", [features.IMAGE, features.NAMES])
def test_a_server_that_decodes_other_pixels_or_names_is_refused(wrong: str) -> None:
    expected = {
        features.IMAGE: np.arange(8, dtype=np.uint8).reshape(2, 2, 2),
        features.NAMES: np.array([[b"one", "zwölf".encode()]] * 2, object),
    }
    said = {
        # As JSON has them: any integer, and text.
        features.IMAGE: expected[features.IMAGE].astype(np.int64),
        features.NAMES: np.array([["one", "zwölf"]] * 2, object),
    }

    class Server(Client):
        def predict(self, *_: object, **__: object) -> Answer:
            return Answer(said, 1, 0.0)

    with Server("127.0.0.1", 1, "rest", model="m") as client:
        checks.check_answers(client, "rest", features.SIGNATURE_DECODE, {}, expected)
        said[wrong] = said[wrong][::-1] if wrong == features.IMAGE else said[wrong][:, ::-1]
        with pytest.raises(checks.RefusedError, match=f"decode: the server's answer has another {wrong}"):
            checks.check_answers(client, "rest", features.SIGNATURE_DECODE, {}, expected)


def test_what_a_model_function_exports_is_compared_where_it_is_known_how() -> None:
    expected = {
        features.CLASSES: np.array([[b"one", "zwölf".encode()]] * 2, object),
        features.SCORES: np.array([[0.25, 0.75], [0.5, 0.5]], np.float32),
        "vector": np.zeros((2, 3), np.float32),
    }
    right = {
        **expected,
        features.CLASSES: np.array([["one", "zwölf"]] * 2, object),
        "vector": np.ones((2, 3)),
    }
    said = dict(right)

    class Server(Client):
        def predict(self, *_: object, **__: object) -> Answer:
            return Answer(said, 1, 0.0)

    with Server("127.0.0.1", 1, "rest", model="m") as client:
        checks.check_answers(client, "rest", features.SIGNATURE_CLASSIFY, {}, expected)
        for key, wrong, why in (
            (features.CLASSES, right[features.CLASSES][:, ::-1], "4 of 4 classes are not the model's"),
            (
                features.SCORES,
                right[features.SCORES] + 1e-3,
                "a score differs by 0.001 from the model's own",
            ),
            ("vector", np.ones((2, 4)), r"the server's answer has no vector of shape \(2, 3\)"),
        ):
            said = {**right, key: wrong}
            with pytest.raises(checks.RefusedError, match=f"rest, signature classify: {why}"):
                checks.check_answers(client, "rest", features.SIGNATURE_CLASSIFY, {}, expected)


@pytest.mark.slow
def test_a_server_ends_with_the_run_that_started_it() -> None:
    starts = f"""
import subprocess, sys, time
command = [sys.executable, "-IS", {tied.__file__!r}, "sleep", "60"]
process = subprocess.Popen(command, start_new_session=True)
print(process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        command = Path(f"/proc/{int(run.stdout.readline())}/cmdline")
        wait_until(lambda: command.read_text().startswith("sleep"))
        run.kill()
    wait_until(lambda: not command.exists())


def wait_until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)
