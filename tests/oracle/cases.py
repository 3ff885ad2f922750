"""Argument sets of EstimatorSpec, for tf.estimator and for ours: only names that both have.

`outcome` runs one in a graph of its own and says what came of it, as data.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

TRAIN, EVAL, PREDICT = "train", "eval", "infer"


def arguments(api: SimpleNamespace) -> dict[str, dict[str, Any]]:
    """The argument sets by name, with tensors of the default graph.

    Args:
        api: `tf`, a TensorFlow with graphs; `PredictOutput`, `ClassificationOutput`, `RegressionOutput`.
    """
    tf = api.tf
    loss = tf.constant(1.0, name="loss")
    one_loss = tf.constant([1.0], name="one_loss")
    losses = tf.constant([1.0, 2.0], name="losses")
    op = tf.no_op(name="op")
    classes = tf.constant([1, 2], name="classes")
    scores = tf.constant([[0.2, 0.8]], name="scores")
    names = tf.constant([["a", "b"]], name="names")
    pair = (loss, loss)
    train = {"mode": TRAIN, "loss": loss, "train_op": op}
    evaluation = {"mode": EVAL, "loss": loss}
    predict = {"mode": PREDICT, "predictions": {"classes": classes}}
    predict_output = api.PredictOutput({"classes": classes})
    default = "serving_default"
    return {
        "train": train,
        "train without loss": {"mode": TRAIN, "train_op": op},
        "train without train_op": {"mode": TRAIN, "loss": loss},
        "train with nothing": {"mode": TRAIN},
        "train with predictions": train | {"predictions": {"classes": classes}},
        "train with metrics": train | {"eval_metric_ops": {"accuracy": pair}},
        "train with a tensor as train_op": train | {"train_op": loss},
        "train with a number as train_op": train | {"train_op": 3},
        "train with a string as train_op": train | {"train_op": "minimize"},
        "train with a loss of shape [1]": train | {"loss": one_loss},
        "train with a loss of shape [2]": train | {"loss": losses},
        "train with a number as loss": train | {"loss": 1.0},
        "eval": evaluation,
        "eval without loss": {"mode": EVAL},
        "eval with a loss of shape [1]": evaluation | {"loss": one_loss},
        "eval with a loss of shape [2]": evaluation | {"loss": losses},
        "eval with predictions": evaluation | {"predictions": {"classes": classes}},
        "eval with train_op": evaluation | {"train_op": op},
        "metrics None": evaluation | {"eval_metric_ops": None},
        "metrics of nothing": evaluation | {"eval_metric_ops": {}},
        "metrics in a list": evaluation | {"eval_metric_ops": [1]},
        "a metric pair": evaluation | {"eval_metric_ops": {"accuracy": pair}},
        "a scalar metric": evaluation | {"eval_metric_ops": {"accuracy": loss}},
        "a number as metric": evaluation | {"eval_metric_ops": {"accuracy": 0.5}},
        "a metric of three": evaluation | {"eval_metric_ops": {"accuracy": (1, 2, 3)}},
        "a metric in a list": evaluation | {"eval_metric_ops": {"accuracy": [1, 2]}},
        "predict": predict,
        "predict without predictions": {"mode": PREDICT},
        "predict with loss alone": {"mode": PREDICT, "loss": loss},
        "predict with a single tensor": {"mode": PREDICT, "predictions": classes},
        "predict with a number": {"mode": PREDICT, "predictions": 3},
        "predict with a number by name": {"mode": PREDICT, "predictions": {"classes": 3}},
        "exports that are no dict": predict | {"export_outputs": [1]},
        "exports that are tensors": predict | {"export_outputs": {"a": 1}},
        "one export": predict | {"export_outputs": {"a": predict_output}},
        "two exports without a default": predict
        | {"export_outputs": {"a": predict_output, "b": predict_output}},
        "two exports with a default": predict
        | {
            "export_outputs": {
                default: predict_output,
                "classify": api.ClassificationOutput(scores=scores, classes=names),
            }
        },
        "an export of a regression": predict | {"export_outputs": {default: api.RegressionOutput(scores)}},
        "exports in eval": evaluation | {"export_outputs": 3},
        "hooks None": train | {"training_hooks": None},
        "hooks of nothing": train | {"training_hooks": []},
        "a hook that is a number": train | {"training_hooks": [3]},
        "an evaluation hook that is a number": evaluation | {"evaluation_hooks": [3]},
        "a prediction hook that is a number": predict | {"prediction_hooks": [3]},
        "a scaffold that is a number": train | {"scaffold": 3},
        "an unknown mode": {"mode": "test", "loss": loss},
    }


def exports(api: SimpleNamespace) -> dict[str, Any]:
    """Constructors of ExportOutputs that may fail, by name."""
    tf = api.tf
    whole = tf.constant([1, 2], name="whole")
    return {
        "classification with nothing": lambda: api.ClassificationOutput(),
        "classification with whole scores": lambda: api.ClassificationOutput(scores=whole),
        "classification with whole classes": lambda: api.ClassificationOutput(classes=whole),
        "regression with whole numbers": lambda: api.RegressionOutput(whole),
        "prediction of a number": lambda: api.PredictOutput({"a": 3}),
        "prediction under a number": lambda: api.PredictOutput({3: whole}),
    }


def outcomes(api: SimpleNamespace) -> dict[str, Any]:
    """What comes of each argument set: the spec's fields, or the error."""
    found = {}
    with api.tf.Graph().as_default():
        for name, given in arguments(api).items():
            found[name] = _outcome(lambda given=given: api.EstimatorSpec(**given))
        for name, make in exports(api).items():
            found[name] = _outcome(make)
    return found


def _outcome(make: Any) -> dict[str, Any]:
    try:
        made = make()
    except (TypeError, ValueError) as error:
        return {"error": type(error).__name__, "message": str(error)}
    if not hasattr(made, "loss"):
        return {"made": type(made).__name__}
    predictions = made.predictions
    outputs = made.export_outputs
    return {
        "loss": None if made.loss is None else made.loss.shape.as_list(),
        "predictions": sorted(predictions) if isinstance(predictions, dict) else "a tensor",
        "eval_metric_ops": sorted(made.eval_metric_ops),
        "export_outputs": {key: type(value).__name__ for key, value in sorted(outputs.items())}
        if isinstance(outputs, dict)
        else None,
        "training_hooks": len(made.training_hooks),
    }
