"""What a model function may export in addition to its predictions: tf.estimator.export's ExportOutputs.

Each becomes a signature of the SavedModel that takes serialized tf.Examples, under the name that the model
function gives it, with the method name that TF Serving's API wants: Predict, Classify or Regress.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from trainer import features

DEFAULT = features.SIGNATURE_IMAGE_BYTES
SINGLE_OUTPUT = "output"  # what a prediction is called that is no dict


class ExportedAs(NamedTuple):
    """How a signature is asked.

    Attributes:
        method: TF Serving's name for the API that takes it.
        input_name: of its input, serialized tf.Examples: string [N].
    """

    method: str
    input_name: str


class ExportOutput:
    """One signature.

    Attributes:
        tensors: its outputs by name, first dimension N.
        method: TF Serving's name for the API that takes it.
        input_name: of its input, serialized tf.Examples: string [N].
    """

    method: ClassVar[str]
    input_name: ClassVar[str]
    tensors: Mapping[str, tf.Tensor]


class PredictOutput(ExportOutput):
    """Any tensors, for TF Serving's Predict."""

    method = "tensorflow/serving/predict"
    input_name = features.EXAMPLES

    def __init__(self, outputs: Any) -> None:
        """Make it.

        Args:
            outputs: a tensor, or tensors by name.

        Raises:
            ValueError: in tf.estimator's words, for a key that is no string or a value that is no tensor.
        """
        if not isinstance(outputs, Mapping):
            outputs = {SINGLE_OUTPUT: outputs}
        for name, value in outputs.items():
            if not isinstance(name, str):
                raise ValueError(f"Prediction output key must be a string; got {name}.")
            if not tf.is_tensor(value):
                raise ValueError(f"Prediction output value must be a Tensor; got {value}.")
        self.tensors = dict(outputs)


class ClassificationOutput(ExportOutput):
    """Scores, classes or both, for TF Serving's Classify."""

    method = "tensorflow/serving/classify"
    input_name = "inputs"

    def __init__(self, scores: Any = None, classes: Any = None) -> None:
        """Make it.

        Args:
            scores: float [N, C].
            classes: string [N, C]: the name of each score's class.

        Raises:
            ValueError: in tf.estimator's words, for other dtypes, or neither.
        """
        if scores is not None and not (tf.is_tensor(scores) and scores.dtype.is_floating):
            raise ValueError(f"Classification scores must be a float32 Tensor; got {scores}")
        if classes is not None and not (tf.is_tensor(classes) and classes.dtype == tf.string):
            raise ValueError(f"Classification classes must be a string Tensor; got {classes}")
        if scores is None and classes is None:
            raise ValueError(
                "Cannot create a ClassificationOutput with empty arguments. At least one of `scores` and "
                "`classes` must be defined."
            )
        given = {features.CLASSES: classes, features.SCORES: scores}
        self.tensors = {name: value for name, value in given.items() if value is not None}


class RegressionOutput(ExportOutput):
    """One number an example, for TF Serving's Regress."""

    method = "tensorflow/serving/regress"
    input_name = "inputs"

    def __init__(self, value: Any) -> None:
        """Make it.

        Args:
            value: float [N] or [N, 1].

        Raises:
            ValueError: in tf.estimator's words, for another dtype.
        """
        if not (tf.is_tensor(value) and value.dtype.is_floating):
            raise ValueError(f"Regression output value must be a float32 Tensor; got {value}")
        self.tensors = {"outputs": value}


def checked(export_outputs: Any, predictions: Any) -> dict[str, ExportOutput]:
    """The export outputs of a PREDICT spec, one of them the default.

    Raises:
        TypeError, ValueError: in tf.estimator's words.
    """
    if export_outputs is None:
        return {DEFAULT: PredictOutput(predictions)}
    if not isinstance(export_outputs, dict):
        raise TypeError(f"`export_outputs` must be dict, received: {export_outputs}.")
    for value in export_outputs.values():
        if not isinstance(value, ExportOutput):
            raise TypeError(
                f"Values in `export_outputs` must be ExportOutput objects, received: {export_outputs}."
            )
    found = dict(export_outputs)
    if len(found) == 1 and DEFAULT not in found:
        (only,) = found.values()
        found[DEFAULT] = only
    if len(found) > 1 and DEFAULT not in found:
        raise ValueError(
            "Multiple `export_outputs` were provided, but none of them are specified as the default. "
            "Use`tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY` to specify a "
            "default."
        )
    return found
