"""The nodes of the pipeline by name: their ids, the keys of what they write, and how one stands.

Ids are the class names of the components (TFX's default); they live in ML Metadata, in compiled files and
in settings.
"""

from __future__ import annotations

from enum import StrEnum


class NodeId(StrEnum):
    """Ids of nodes, and of the runs of one node that rollback records."""

    IMAGES = "Images"
    DATA_FINGERPRINT = "DataFingerprint"  # on Kubeflow, where a schedule looks whether the data changed
    EXAMPLE_GEN = "ImageExampleGen"
    SCHEMA = "CuratedSchema"
    STATISTICS_GEN = "StatisticsGen"
    EXAMPLE_VALIDATOR = "ExampleValidator"
    PREVIOUS_DATA = "PreviousData"
    DATA_GATE = "DataGate"
    TRANSFORM = "Transform"
    WARM_START = "WarmStart"
    TUNER = "Tuner"
    TRAINER = "Trainer"
    BASELINE_MODEL = "BaselineModel"
    EVALUATOR = "Evaluator"
    SERVING_VALIDATOR = "ServingValidator"
    PUSHER = "Pusher"
    REPORT_GEN = "ReportGen"
    ROLLBACK = "Rollback"


class Output(StrEnum):
    """Keys of what nodes write, as far as anything but the next node looks at it."""

    EXAMPLES = "examples"
    EVALUATION = "evaluation"
    BLESSING = "blessing"
    PUSHED_MODEL = "pushed_model"
    MODEL = "model"
    MODEL_RUN = "model_run"
    REPORT = "report"
    BEST_HYPERPARAMETERS = "best_hyperparameters"
    TUNER_RESULTS = "tuner_results"


class NodeState(StrEnum):
    """How a node of a run stands, on this machine and on Kubeflow."""

    WAITING = "waiting"  # for the nodes before it, or for its pod
    RUNNING = "running"
    DONE = "done"
    CACHED = "cached"
    SKIPPED = "skipped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
