"""The training of real_estimator.py, by this project's Trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import model
from trainer.estimator import RunConfig
from trainer.estimator_model import EstimatorModel
from trainer.features import DEFAULT_IMAGE_SHAPE
from trainer.recipes import resolve
from trainer.user_functions import UserFunctions
from trainer.warm_start import Start, values

BATCH = 20
RATE = 0.05


def trained(
    inputs: Mapping[str, np.ndarray], steps: int, model_fn: Callable[..., Any] = model.model_fn
) -> dict[str, Any]:
    """Losses of the steps, an evaluation and the predictions after them.

    Args:
        inputs: see inputs.py.
        steps: how many.
        model_fn: the tutorial's, in TensorFlow 1's style or in this project's own.
    """
    ours = _built(steps, model_fn)
    ours.network.set_weights([value for name, value in inputs.items() if "/" in name])
    images, labels = {"image": inputs["image"]}, inputs["label"]
    batches = tf.data.Dataset.from_tensor_slices((images, labels))
    iterator = iter(batches.repeat().batch(BATCH))
    ours.make_train_function()
    losses = []
    for _ in range(steps):
        ours.reset_metrics()  # so that the running mean is this step's
        losses.append(float(ours.train_function(iterator)["loss"]))
    return {
        "losses": losses,
        "evaluation": ours.evaluate(batches.batch(BATCH), verbose=0, return_dict=True),
        "global_step": int(ours.graph_variables.global_step.numpy()),
        "classes": ours.predict(images, batch_size=BATCH, verbose=0)["classes"].tolist(),
    }


def warm_started(
    inputs: Mapping[str, np.ndarray], folder: str, model_fn: Callable[..., Any] = model.model_fn
) -> list[int]:
    """The predictions of a model that begins with a checkpoint of the real Estimator.

    Args:
        inputs: see inputs.py.
        folder: the Estimator's model_dir.
        model_fn: as for trained.
    """
    ours = _built(1, model_fn)
    theirs = {"conv1": "conv2d", "conv2": "conv2d_1", "logits": "dense_1"}
    renamed = {
        f"{layer}/{part}": f"{theirs[layer]}/{part}"
        for layer in theirs
        for part in ("kernel", "bias")
        if f"{layer}/{part}" in ours.named_variables()
    }
    Start(values(folder), renamed=renamed).apply(ours)
    predicted = ours.predict({"image": inputs["image"]}, batch_size=BATCH, verbose=0)["classes"]
    return [int(one) for one in predicted]


def _built(steps: int, model_fn: Callable[..., Any]) -> EstimatorModel:
    params = resolve("tutorial", dropout=0.0, learning_rate=RATE, batch_size=BATCH, precision="float32")
    functions = UserFunctions(model_fn=model_fn)
    made, _ = functions.build(params, DEFAULT_IMAGE_SHAPE, 10, steps, RunConfig())
    return made
