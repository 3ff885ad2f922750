"""What TFMA measures for its own tools; what a model must reach is the Evaluator's own affair."""

from __future__ import annotations

from tensorflow_model_analysis.proto import config_pb2 as tfma

from trainer import features

ACCURACY = "sparse_categorical_accuracy"


def eval_config() -> tfma.EvalConfig:
    """TFMA's configuration: overall and per class, on the `examples` signature, without thresholds."""
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                signature_name=features.SIGNATURE_EXAMPLES,
                label_key=features.LABEL,
                prediction_key=features.PROBABILITIES,
            )
        ],
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[features.LABEL])],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[
                    tfma.MetricConfig(class_name=name)
                    for name in (
                        "ExampleCount",
                        "MultiClassConfusionMatrixPlot",
                        "SparseCategoricalAccuracy",
                    )
                ]
            )
        ],
    )
