"""A model function that uses what a model function may say beside its loss."""

from __future__ import annotations

import logging
from typing import Any

import keras
import tensorflow as tf

from trainer.estimator import EstimatorSpec, LoggingTensorHook, ModeKeys, RunConfig, minimize
from trainer.export_outputs import ClassificationOutput, PredictOutput, RegressionOutput


def model_fn(
    features: Any, labels: Any, mode: str, network: keras.Model, config: RunConfig
) -> EstimatorSpec:
    """Softmax regression with several exports, a Keras metric, logged tensors and summaries."""
    assert config.num_workers == 1
    with tf.GradientTape() as tape:
        logits = network(features["image"])
        probabilities = tf.nn.softmax(logits)
        predictions = {"classes": tf.argmax(logits, -1), "probabilities": probabilities}
        if mode == ModeKeys.PREDICT:
            exports = {
                "serving_default": PredictOutput(predictions),
                "best": ClassificationOutput(scores=probabilities),
                "margin": RegressionOutput(tf.reduce_max(logits, -1)),
                "raw": PredictOutput(logits),
            }
            return EstimatorSpec(mode, predictions, export_outputs=exports)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    if mode == ModeKeys.EVAL:
        auc = keras.metrics.AUC()
        auc.update_state(tf.one_hot(labels, logits.shape[-1]), probabilities)
        return EstimatorSpec(mode, loss=loss, eval_metric_ops={"auc": auc})
    tf.summary.scalar("largest_logit", tf.reduce_max(logits))
    norm = tf.linalg.global_norm([weight.value for weight in network.trainable_variables])
    return EstimatorSpec(
        mode,
        loss=loss,
        train_op=minimize(tape, loss, network.trainable_variables),
        training_hooks=[LoggingTensorHook({"norm": norm}, every_n_iter=4)],
    )


class _Told(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        logging.getLogger(__name__).info("an epoch has ended")


def make_callbacks(params: Any, config: RunConfig) -> list[keras.callbacks.Callback]:  # noqa: ARG001
    """One that tells of each epoch."""
    return [_Told()]
