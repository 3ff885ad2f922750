"""metrics.json: what a training run measured, in its model_run artifact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

METRICS_FILE = "metrics.json"


def write(model_run_dir: str, metrics: Mapping[str, Any]) -> None:
    """Write it; the folder is made if it is not there."""
    tf.io.gfile.makedirs(model_run_dir)
    with tf.io.gfile.GFile(f"{model_run_dir}/{METRICS_FILE}", "w") as file:
        file.write(json.dumps(metrics, indent=2) + "\n")
