"""Classify and Regress: examples in, classes or values out, by TF Serving's rules for such signatures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from serving.protocol.errors import invalid
from serving.protocol.protos import classification_pb2, example_pb2, input_pb2, regression_pb2
from serving.protocol.signatures import DEFAULT_SIGNATURE, Signature, shape_text
from serving.protocol.tensors import dtype_of

INPUTS = "inputs"  # CLASSIFY_INPUTS and REGRESS_INPUTS of TensorFlow's signature constants
CLASSES, SCORES = "classes", "scores"
OUTPUTS = "outputs"

CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"


def find(signatures: Mapping[str, Signature], name: str) -> Signature:
    """The signature of a Classify or Regress request.

    Raises:
        ServingError: INVALID_ARGUMENT in TF Serving's words.
    """
    name = name or DEFAULT_SIGNATURE
    if name not in signatures:
        raise invalid(f"No signature was found with the name: {name}")
    return signatures[name]


def serialized_examples(given: input_pb2.Input) -> np.ndarray:
    """The examples of a request, the context merged into each.

    Returns:
        object [N]: serialized tf.Examples.

    Raises:
        ServingError: INVALID_ARGUMENT when there are none.
    """
    context = example_pb2.Example()
    examples = given.example_list.examples
    if given.WhichOneof("kind") == "example_list_with_context":
        context = given.example_list_with_context.context
        examples = given.example_list_with_context.examples
    if not examples:
        raise invalid("Input is empty.")
    # As in TF Serving: two serialized messages in a row are one merged message.
    prefix = context.SerializeToString()
    serialized = np.empty(len(examples), object)
    serialized[:] = [prefix + example.SerializeToString() for example in examples]
    return serialized


def classify_outputs(signature: Signature) -> tuple[str, ...]:
    """The outputs that a classification reads.

    Raises:
        ServingError: INVALID_ARGUMENT when the signature is none for classification.
    """
    _check_input(signature, "classification")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    wanted = tuple(alias for alias in (CLASSES, SCORES) if alias in signature.outputs)
    if not wanted:
        raise invalid(
            "Expected classification signature outputs to contain at least one of "
            f'"{CLASSES}" or "{SCORES}". Signature was: {signature.definition}'
        )
    return wanted


def regress_outputs(signature: Signature) -> tuple[str, ...]:
    """The output that a regression reads.

    Raises:
        ServingError: INVALID_ARGUMENT when the signature is none for regression.
    """
    if len(signature.inputs) == 1 and len(signature.outputs) != 1:
        raise invalid("Expected one output Tensor.")
    _check_input(signature, "regression")
    if OUTPUTS not in signature.outputs:
        raise invalid(f"No regression outputs found in SignatureDef: {signature.definition}")
    return (OUTPUTS,)


def _check_input(signature: Signature, kind: str) -> None:
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if INPUTS not in signature.inputs:
        raise invalid(f"No {kind} inputs found in SignatureDef: {signature.definition}")


def classification(
    values: Mapping[str, np.ndarray], count: int, result: classification_pb2.ClassificationResult
) -> None:
    """Write the answer of a classification.

    Args:
        values: `classes` string [N, C] or `scores` float32 [N, C], or both.
        count: N.
        result: where to.

    Raises:
        ServingError: INVALID_ARGUMENT when the model gave something else.
    """
    for alias, expected in ((CLASSES, "string"), (SCORES, "float32")):
        if alias not in values:
            continue
        value = values[alias]
        if value.ndim != 2:
            raise invalid(
                f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(value.shape)}"
            )
        if dtype_of(value).name != expected:
            kind = "DT_STRING" if expected == "string" else "DT_FLOAT"
            raise invalid(f"Expected {alias} Tensor of {kind}. Got: {_dtype_name(value)}")
        if len(value) != count:
            raise invalid(f"Expected {alias} output batch size of {count}. Got: {len(value)}")
    labels, scores = values.get(CLASSES), values.get(SCORES)
    if labels is not None and scores is not None and labels.shape != scores.shape:
        raise invalid(
            "Tensors class and score should match in dim_size(1)."
            f" Got {labels.shape[1]} vs. {scores.shape[1]}"
        )
    present = labels if labels is not None else scores
    width = 0 if present is None else present.shape[1]
    for row in range(count):
        classes = result.classifications.add().classes
        for column in range(width):
            each = classes.add()
            if labels is not None:
                each.label = _text(labels[row, column])
            if scores is not None:
                each.score = float(scores[row, column])


def regression(values: np.ndarray, count: int, result: regression_pb2.RegressionResult) -> None:
    """Write the answer of a regression.

    Args:
        values: float32 [N] or [N, 1].
        count: N.
        result: where to.

    Raises:
        ServingError: INVALID_ARGUMENT when the model gave something else.
    """
    if not (values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)):
        raise invalid(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            + shape_text(values.shape)
        )
    if len(values) != count:
        raise invalid(f"Input batch size did not match output batch size: {count} vs. {len(values)}")
    if dtype_of(values).name != "float32":
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_dtype_name(values)}")
    for value in values.ravel().tolist():
        result.regressions.add().value = value


def _dtype_name(value: np.ndarray) -> str:
    return f"DT_{dtype_of(value).name.upper()}"


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
