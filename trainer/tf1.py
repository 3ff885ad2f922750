"""TensorFlow 1's names, for a model function that is brought as it is: `from trainer import tf1 as tf`.

Everything of tf.compat.v1, `layers` as TensorFlow had them before Keras 3, and of tf.estimator what a model
function uses.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import tensorflow as tf
from tf_keras.api._v1.keras.__internal__.legacy import layers

from trainer import estimator as _estimator
from trainer import export_outputs as _exports

__all__ = ["estimator", "layers"]

estimator = SimpleNamespace(
    ModeKeys=_estimator.ModeKeys,
    EstimatorSpec=_estimator.EstimatorSpec,
    RunConfig=_estimator.RunConfig,
    export=SimpleNamespace(
        PredictOutput=_exports.PredictOutput,
        ClassificationOutput=_exports.ClassificationOutput,
        RegressionOutput=_exports.RegressionOutput,
    ),
)


def __getattr__(name: str) -> Any:
    return getattr(tf.compat.v1, name)
