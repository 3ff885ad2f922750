"""Names of files and properties in artifacts that several rooms know; importing them costs nothing."""

from __future__ import annotations

# Files. Formats with code of their own name theirs there: verdict, dataset_facts, answers.
REPORT_FILE = "report.html"  # ReportGen's page
SUMMARY_FILE = "summary.json"  # and its figures
METRICS_FILE = "metrics.json"  # the Trainer's, in its model_run artifact
DATA_GATE_FILE = "data_gate.json"  # what DataGate let pass
SERVING_VALIDATOR_FILE = "serving_validator.json"
NO_BASELINE_FILE = "NO_BASELINE"  # in BaselineModel's artifact where there is no model

# Custom properties.
REASON = "reason"  # why a model is not blessed by ServingValidator, or why there is no baseline
VERSION = "version"  # of the baseline, in the push destination
PINNED = "pinned"  # 1: that version was asked for, whatever is in production
