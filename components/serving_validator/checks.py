"""What is asked of a served candidate, and compared with the model's own answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow_serving.apis import prediction_log_pb2

from components.shared import classifier, examples
from components.shared.classifier import Classifier
from serving.client import Client, TransportName
from serving.protocol.errors import Code, ServingError
from trainer import features
from trainer.features import ImageInput, ImageShape

TOLERANCE = 1e-4  # of a probability
LATENCY_QUANTILE = 0.95
MAX_WARMUP_RECORDS = 1_000  # TF Serving's limit
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
SIGNATURES = (
    features.SIGNATURE_IMAGE_BYTES,
    features.SIGNATURE_PIXELS,
    features.SIGNATURE_FLOATS,
    features.SIGNATURE_EXAMPLES,
    features.SIGNATURE_DECODE,
)
# Outputs that are compared within TOLERANCE, and how one of their values is called.
_NUMBERS = {features.PROBABILITIES: "a probability", features.SCORES: "a score"}
_DECODED = 8  # images that `decode` gets: it answers with all of their pixels

Inputs = Mapping[str, NDArray]  # of a signature, by name
Outputs = Mapping[str, NDArray]


# What a server answers where not the model is at fault, but the machine: a lost connection, a time-out.
_OF_MACHINE = (
    Code.CANCELLED,
    Code.DEADLINE_EXCEEDED,
    Code.RESOURCE_EXHAUSTED,
    Code.ABORTED,
    Code.UNAVAILABLE,
)


class RefusedError(Exception):
    """The candidate is not fit to be served; one line that says why."""


class MachineError(Exception):
    """The candidate could not be tried on this machine at this time, which is no verdict; one line."""


def load(model_dir: str) -> Classifier:
    """The model in this process, where the Evaluator may have it too.

    Raises:
        RefusedError: where it does not load, or a signature is missing.
    """
    try:
        model = classifier.load(model_dir)
    except Exception as error:  # TensorFlow raises whatever its parts raise
        if classifier.is_fault_of_machine(error):
            raise
        raise RefusedError(f"the model does not load: {_first_line(error.__cause__ or error)}") from error
    missing = [name for name in SIGNATURES if name not in model.signatures]
    if missing:
        raise RefusedError(
            f"signature {missing[0]} is missing; there are {', '.join(sorted(model.signatures))}"
        )
    return model


def requests(
    signatures: Mapping[str, tf.types.experimental.ConcreteFunction], records: Sequence[bytes]
) -> dict[str, Inputs]:
    """The same images as each signature wants them.

    Args:
        signatures: of the model; `floats` tells the images' shape.
        records: serialized tf.Examples.
    """
    shape = ImageShape(*signatures[features.SIGNATURE_FLOATS].inputs[0].shape[1:])
    stored = examples.parse(records).raw
    encoded = any(len(image) != math.prod(shape) for image in stored)
    # How a picture comes to the model's size does not matter here: both sides get the same.
    images, _ = examples.decode(stored, ImageInput(shape, encoded, fit="stretch"))
    whole = images.reshape(-1, *shape)
    files = list(stored) if encoded else [tf.io.encode_png(image).numpy() for image in whole]
    return {
        features.SIGNATURE_IMAGE_BYTES: {features.IMAGE_BYTES: np.array(files, object)},
        features.SIGNATURE_DECODE: {features.IMAGE_BYTES: np.array(files[:_DECODED], object)},
        features.SIGNATURE_PIXELS: {features.IMAGE: images},
        features.SIGNATURE_FLOATS: {features.IMAGE: whole.astype(np.float32) / 255},
        features.SIGNATURE_EXAMPLES: {features.EXAMPLES: np.array(records, object)},
        # What the model function exports besides takes examples too, under a name that its kind has.
        **{
            name: dict.fromkeys(signature.structured_input_signature[1], np.array(records, object))
            for name, signature in signatures.items()
            if name not in SIGNATURES
        },
    }


def own_answer(
    name: str, signature: tf.types.experimental.ConcreteFunction, inputs: Inputs
) -> dict[str, NDArray]:
    """What the model itself says, in this process.

    Raises:
        RefusedError: where it fails, or lacks an output that is compared.
    """
    try:
        tensors = {
            key: tf.constant(value.tolist() if value.dtype == object else value)
            for key, value in inputs.items()
        }
        outputs = {key: value.numpy() for key, value in signature(**tensors).items()}
    except Exception as error:
        if classifier.is_fault_of_machine(error):
            raise
        raise RefusedError(f"signature {name} fails: {_first_line(error)}") from error
    if missing := set(_compared(name, outputs)) - set(outputs):
        raise RefusedError(f"signature {name} has no output {min(missing)}")
    return outputs


def check_answers(
    client: Client, transport: TransportName, name: str, inputs: Inputs, expected: Outputs
) -> None:
    """Send one batch and compare.

    Raises:
        RefusedError: for an error of the model, other classes, probabilities or scores off by more than
            TOLERANCE, or other pixels or names; of a signature that the model function exports besides, for
            a lack of any other output.
        MachineError: where the server is gone or too busy.
    """
    where = f"{transport}, signature {name}"
    try:
        outputs = client.predict(inputs, name).outputs
    except ServingError as error:
        raise _told(f"{where}: the server answers {_first_line(error)}", error) from error
    compared = _compared(name, expected)
    for key in compared if name in SIGNATURES else expected:
        if key not in outputs or outputs[key].shape != expected[key].shape:
            raise RefusedError(f"{where}: the server's answer has no {key} of shape {expected[key].shape}")
    for key in compared:
        said, own = outputs[key], expected[key]
        if key in _NUMBERS:
            off = float(np.abs(said - own).max(initial=0))
            if not off <= TOLERANCE:
                raise RefusedError(f"{where}: {_NUMBERS[key]} differs by {off:.2g} from the model's own")
        elif key == features.CLASSES and (differing := _differing(said, own)):
            raise RefusedError(f"{where}: {differing} of {own.size} classes are not the model's")
        elif _differing(said, own):
            raise RefusedError(f"{where}: the server's answer has another {key} than the model's")


def latency_ms(client: Client, transport: TransportName, inputs: Inputs) -> float:
    """The LATENCY_QUANTILE of the latencies when the images are sent one by one to the default signature.

    Raises:
        RefusedError: for an error of the model.
        MachineError: where the server is gone or too busy.
    """
    ((name, images),) = inputs.items()
    try:
        taken = sorted(
            client.predict({name: images[at : at + 1]}, features.SIGNATURE_IMAGE_BYTES).latency_s
            for at in range(len(images))
        )
    except ServingError as error:
        text = f"{transport}, one image: the server answers {_first_line(error)}"
        raise _told(text, error) from error
    return taken[math.ceil(LATENCY_QUANTILE * len(taken)) - 1] * 1e3


def check_warmup(model_dir: Path, signatures: Iterable[str]) -> int:
    """Look at the warm-up file, which the server has replayed when it loaded the model.

    Returns:
        How many requests there are.

    Raises:
        RefusedError: where it is missing or no TFRecord of PredictionLogs, or leaves a signature cold.
    """
    path = model_dir / WARMUP_FILE
    if not path.is_file():
        raise RefusedError(f"there are no warm-up requests: {WARMUP_FILE} is missing")
    cold, count = set(signatures), 0
    try:
        for record in tf.data.TFRecordDataset(str(path)):
            log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
            kind = log.WhichOneof("log_type") or "predict_log"
            cold.discard(getattr(log, kind).request.model_spec.signature_name)
            count += 1
    except Exception as error:
        if classifier.is_fault_of_machine(error):
            raise
        raise RefusedError(f"the warm-up requests cannot be read: {_first_line(error)}") from error
    if count > MAX_WARMUP_RECORDS:
        raise RefusedError(f"{count} warm-up requests are more than TF Serving's {MAX_WARMUP_RECORDS}")
    if cold:
        raise RefusedError(f"no warm-up request is for signature {min(cold)}")
    return count


def _compared(name: str, outputs: Outputs) -> Sequence[str]:
    """The outputs of a signature that are compared."""
    if name == features.SIGNATURE_DECODE:
        return features.IMAGE, features.NAMES
    if name in SIGNATURES:
        return features.CLASSES, features.PROBABILITIES
    return [key for key in (features.CLASSES, *_NUMBERS) if key in outputs]


def _differing(said: NDArray, own: NDArray) -> int:
    """How many elements are not the same; text comes as str by REST and as bytes by gRPC."""
    pairs = zip(_plain(said), _plain(own), strict=True)
    return sum(one != other for one, other in pairs)


def _plain(values: NDArray) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in values.ravel().tolist()]


def _told(text: str, error: ServingError) -> Exception:
    return MachineError(text) if error.code in _OF_MACHINE else RefusedError(text)


def _first_line(error: BaseException) -> str:
    """What an error says, in one line; TensorFlow puts the nodes of the graph around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0] == "Graph execution error:":
        lines = [line for line in lines if not line.startswith("[[")][-1:]
    return lines[0] if lines else type(error).__name__
