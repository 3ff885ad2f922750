"""What the real tf.estimator does, as JSON: python real_estimator.py INPUTS.npz STEPS OUTPUT.json MODEL_DIR

Runs in an environment with tensorflow-cpu==2.15.1 and tensorflow-estimator==2.15.0 and nothing of this
project's: `make oracle` builds it. INPUTS has `image` float32 [N, 28, 28, 1], `label` int64 [N], and first
weights by variable name; MODEL_DIR gets the checkpoint. The training takes the images in order, BATCH at a
time, without dropout.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import tensorflow as tf2
import tensorflow.compat.v1 as tf

HERE = Path(__file__).parent
BATCH = 20
RATE = 0.05


def module(name: str, **changes: str) -> SimpleNamespace:
    """A file beside this one, run with some of its text changed."""
    source = (HERE / f"{name}.py").read_text()
    for old, new in changes.items():
        source = source.replace(old.replace("_", " "), new)
    names: dict = {"__name__": name}
    exec(compile(source, f"{name}.py", "exec"), names)
    return SimpleNamespace(**names)


def trained(inputs: dict, steps: int, model_dir: str) -> dict:
    """Losses of the steps, an evaluation and the predictions after them."""
    model_fn = module(
        "cnn_mnist", from_trainer_import_tf1_as_tf="import tensorflow.compat.v1 as tf"
    ).cnn_model_fn
    weights = {name: value for name, value in inputs.items() if "/" in name}
    losses: list[float] = []

    class Losses(tf.train.SessionRunHook):
        def before_run(self, context):
            return tf.train.SessionRunArgs(self.loss)

        def begin(self):
            graph = tf.get_default_graph()
            self.loss = graph.get_collection(tf.GraphKeys.LOSSES)[0]

        def after_run(self, context, values):
            losses.append(float(values.results))

    def started(features, labels, mode, params):
        spec = model_fn(features, labels, mode, params)

        def init(scaffold, session):
            for variable in tf.trainable_variables():
                variable.load(weights[variable.op.name], session)

        return spec._replace(scaffold=tf.train.Scaffold(init_fn=init))

    def batches(images, labels, repeat):
        return lambda: (
            tf2.data.Dataset.from_tensor_slices(({"image": images}, labels)).repeat(repeat).batch(BATCH)
        )

    images, labels = inputs["image"], inputs["label"]
    estimator = tf.estimator.Estimator(
        started, params={"dropout": 0.0, "learning_rate": RATE}, model_dir=model_dir
    )
    estimator.train(batches(images, labels, None), steps=steps, hooks=[Losses()])
    evaluated = estimator.evaluate(batches(images, labels, 1))
    predicted = [int(one["classes"]) for one in estimator.predict(batches(images, labels, 1))]
    return {
        "losses": losses,
        "evaluation": {name: float(value) for name, value in evaluated.items()},
        "classes": predicted,
    }


def refusals() -> dict:
    """What the Estimator says of a model function's arguments when it is made."""
    functions = {
        "without features": lambda labels, mode: None,
        "with another": lambda features, labels, network: None,
        "features alone": lambda features: None,
        "all of them": lambda features, labels, mode, params, config: None,
    }
    found = {}
    for name, function in functions.items():
        try:
            tf.estimator.Estimator(function)
        except ValueError as error:
            found[name] = re.sub(r" at 0x\w+", "", str(error))
        else:
            found[name] = None
    return found


if __name__ == "__main__":
    with np.load(sys.argv[1]) as file:
        given = dict(file)
    export = tf.estimator.export
    api = SimpleNamespace(
        tf=tf,
        EstimatorSpec=tf.estimator.EstimatorSpec,
        PredictOutput=export.PredictOutput,
        ClassificationOutput=export.ClassificationOutput,
        RegressionOutput=export.RegressionOutput,
    )
    Path(sys.argv[3]).write_text(
        json.dumps(
            {
                "versions": {"tensorflow": tf.__version__},
                "specs": module("cases").outcomes(api),
                "model_fn": refusals(),
                "training": trained(given, int(sys.argv[2]), sys.argv[4]),
                "checkpoint": dict(tf2.train.list_variables(sys.argv[4])),
            },
            indent=1,
        )
        + "\n"
    )
