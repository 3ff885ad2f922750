"""What to do about a refusal of a model function; the refusals themselves are in tf.estimator's words."""

from __future__ import annotations

import re

_METRICS = "give values per example, float [N], a keras.metrics.Metric, or a pair of tf.compat.v1.metrics"
_HINTS = (
    (r"^KeyError", "features has 'image' alone; params has the recipe's fields and trainer.params.NAME"),
    (r"^Missing train_op", "give train_op=minimize(tape, loss, network.trainable_variables)"),
    (r"^Missing loss", "TRAIN and EVAL need loss=, the mean over the batch"),
    (r"^Missing predictions", "PREDICT needs predictions=, with 'classes' and 'probabilities'"),
    (r"^Loss must be scalar", "take tf.reduce_mean of it"),
    (r"^loss must be Tensor", "compute it with TensorFlow's operations"),
    (r"^predictions(\[.*\])? must be Tensor", "compute it with TensorFlow's operations"),
    (r"must have the batch as its first", "leave it out, or repeat it for each example"),
    (r"^train_op must be", "give what minimize returned, or a function of an optimizer"),
    (r"^eval_metric_ops must be a dict", 'give {"accuracy": …}'),
    (r"of eval_metric_ops must be", _METRICS),
    (r"^All hooks must be", "write the hook as a Keras callback"),
    (r"^model_fn should return an EstimatorSpec", "return trainer.estimator.EstimatorSpec in every mode"),
    (r"^model_fn was called in mode", "give the spec the mode that the function got"),
    (r"`export_outputs`", "see trainer.export_outputs"),
)


def hint(message: str) -> str:
    """What to do, after a colon; empty where the message says it itself."""
    return next((f": {advice}" for pattern, advice in _HINTS if re.search(pattern, message)), "")
