"""What the Evaluator measures, and what a model must reach."""

from __future__ import annotations

from tensorflow_model_analysis.proto import config_pb2 as tfma

from pipeline.config import GatesConfig
from trainer import features

ACCURACY = "sparse_categorical_accuracy"
CONFUSION_MATRIX = "multi_class_confusion_matrix_plot"
EXAMPLE_COUNT = "example_count"


def eval_config(gates: GatesConfig) -> tfma.EvalConfig:
    """TFMA's configuration: overall and per class, on the `examples` signature."""
    overall = tfma.SlicingSpec()
    by_class = tfma.SlicingSpec(feature_keys=[features.LABEL])
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name=features.SIGNATURE_EXAMPLES,
                label_key=features.LABEL,
                prediction_key=features.PROBABILITIES,
            )
        ],
        slicing_specs=[overall, by_class],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name="ExampleCount"),
                    tfma.MetricConfig(class_name="MultiClassConfusionMatrixPlot"),
                    tfma.MetricConfig(
                        class_name="SparseCategoricalAccuracy",
                        per_slice_thresholds=[
                            _at_least(gates.accuracy, overall),
                            _at_least(gates.class_accuracy, by_class),
                        ],
                    ),
                ]
            )
        ],
    )


def _at_least(value: float, slices: tfma.SlicingSpec) -> tfma.PerSliceMetricThreshold:
    return tfma.PerSliceMetricThreshold(
        slicing_specs=[slices],
        threshold=tfma.MetricThreshold(
            value_threshold=tfma.GenericValueThreshold(lower_bound={"value": value})
        ),
    )
