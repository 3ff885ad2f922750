"""The files that TensorFlow Model Analysis would write, from counts.

TFX's Evaluator lets TFMA ask the model and combine its answers example by example: 3,600 images a second.
All that it writes for our configuration follows from one confusion matrix. So the records are made here by
the converters that TFMA's writers use, from what its evaluators would have yielded; every file is equal to
TFX's own (a test compares them). TFMA calls its file format internal, so another version may need another
writer here: the same test tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePath

import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf import json_format
from google.protobuf.message import Message
from numpy.typing import NDArray
from tensorflow_model_analysis import version
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.metrics.multi_class_confusion_matrix_metrics import Matrices, MatrixEntryKey
from tensorflow_model_analysis.proto import config_pb2, validation_result_pb2
from tensorflow_model_analysis.writers import metrics_plots_and_validations_writer as converters

from trainer import features

ACCURACY = "sparse_categorical_accuracy"
_COUNT, _MATRIX = "example_count", "multi_class_confusion_matrix_plot"
_SHARD = "-00000-of-00001.tfrecord"

SliceKey = tuple[tuple[str, int], ...]


class UnknownEvalConfigError(ValueError):
    """An evaluation that the counts do not answer; the text says what to do."""


def eval_config() -> config_pb2.EvalConfig:
    """What is measured: overall and per class, without thresholds, which are the gates' affair."""
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name=features.SIGNATURE_EXAMPLES,
                label_key=features.LABEL,
                prediction_key=features.PROBABILITIES,
            )
        ],
        slicing_specs=[config_pb2.SlicingSpec(), config_pb2.SlicingSpec(feature_keys=[features.LABEL])],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(class_name=name)
                    for name in (
                        "ExampleCount",
                        "MultiClassConfusionMatrixPlot",
                        "SparseCategoricalAccuracy",
                    )
                ]
            )
        ],
    )


def check(asked: config_pb2.EvalConfig) -> None:
    """Refuse another configuration.

    Raises:
        UnknownEvalConfigError: where it is not that of `eval_config`.
    """
    if asked != eval_config():
        raise UnknownEvalConfigError(
            "eval_config: this Evaluator measures one configuration, that of "
            "components.evaluator.tfma_files.eval_config(); for another one use TFX's Evaluator "
            "(tfx.components.Evaluator) as well"
        )


def write(folder: str, model: str, confusion: NDArray[np.int64]) -> None:
    """Write every file that TFX's Evaluator leaves.

    Args:
        folder: of the evaluation artifact.
        model: folder of the SavedModel, for display.
        confusion: counts [C, C]: rows are true classes.
    """
    tf.io.gfile.makedirs(folder)
    slices = list(_slices(confusion))
    metrics = (
        converters.convert_slice_metrics_to_proto((key, _metrics(part)), None) for key, part in slices
    )
    plots = (converters.convert_slice_plots_to_proto((key, _plots(part)), None) for key, part in slices)
    attributions = (converters.convert_slice_attributions_to_proto((key, {})) for key, _ in slices)
    _write(folder, f"{tfma.METRICS_KEY}{_SHARD}", metrics)
    _write(folder, f"{tfma.PLOTS_KEY}{_SHARD}", plots)
    _write(folder, f"{tfma.ATTRIBUTIONS_KEY}{_SHARD}", attributions)
    validation = validation_result_pb2.ValidationResult(missing_thresholds=True)
    _write(folder, f"{tfma.VALIDATIONS_KEY}.tfrecord", [validation])
    completed = tfma.utils.update_eval_config_with_defaults(
        eval_config(), has_baseline=False, rubber_stamp=True
    )
    run = config_pb2.EvalRun(
        eval_config=completed,
        version=version.VERSION,
        data_location="<user provided PCollection>",
        file_format="<unknown>",
        model_locations={"": model},
    )
    with tf.io.gfile.GFile(str(PurePath(folder) / "eval_config.json"), "w") as file:
        file.write(json_format.MessageToJson(run) + "\n")


def _slices(confusion: NDArray[np.int64]) -> Iterator[tuple[SliceKey, NDArray[np.int64]]]:
    """All examples, then those of each class that has any."""
    yield (), confusion
    for label in np.flatnonzero(confusion.sum(axis=1)):
        part = np.zeros_like(confusion)
        part[label] = confusion[label]
        yield ((features.LABEL, int(label)),), part


def _metrics(confusion: NDArray[np.int64]) -> dict[metric_types.MetricKey, float]:
    count, right = confusion.sum(), confusion.trace()
    return {
        # Keras's metric, which TFMA runs, counts in float32. The order is that of TFMA's records.
        metric_types.MetricKey(name=ACCURACY, example_weighted=False): float(
            np.float32(right) / np.float32(count)
        ),
        metric_types.MetricKey(name=_COUNT, example_weighted=False): float(count),
    }


def _plots(confusion: NDArray[np.int64]) -> dict[metric_types.PlotKey, Message]:
    matrix = {
        MatrixEntryKey(int(label), int(said)): float(confusion[label, said])
        for label, said in np.argwhere(confusion)
    }
    plot = Matrices({0.0: matrix}).to_proto().multi_class_confusion_matrix_at_thresholds
    return {metric_types.PlotKey(name=_MATRIX, example_weighted=False): plot}


def _write(folder: str, name: str, records: Iterable[Message]) -> None:
    with tf.io.TFRecordWriter(str(PurePath(folder) / name)) as writer:
        for record in records:
            writer.write(record.SerializeToString())
