"""A model function and a network as a user would write them."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from trainer.estimator import EstimatorSpec, ModeKeys, minimize
from trainer.recipes import Params


def build_network(params: Params, image_shape: tuple[int, int, int], num_classes: int) -> keras.Model:  # noqa: ARG001
    """Softmax regression."""
    images = keras.Input(image_shape)
    return keras.Model(images, keras.layers.Dense(num_classes)(keras.layers.Flatten()(images)))


def model_fn(
    features: Mapping[str, tf.Tensor],
    labels: tf.Tensor | None,
    mode: str,
    params: Params,  # noqa: ARG001
    network: keras.Model,
) -> EstimatorSpec:
    """Squared error against one-hot labels; answers one thing more than trainer.model's."""
    with tf.GradientTape() as tape:
        logits = network(features["image"], training=mode == ModeKeys.TRAIN)
        predictions = {
            "classes": tf.argmax(logits, axis=-1),
            "probabilities": tf.nn.softmax(logits),
            "logits": logits,
            "margin": tf.reduce_max(logits, axis=-1),
        }
        if mode == ModeKeys.PREDICT:
            return EstimatorSpec(mode, predictions=predictions)
        loss = tf.reduce_mean(tf.square(logits - tf.one_hot(labels, logits.shape[-1])))
    return EstimatorSpec(
        mode,
        predictions=predictions,
        loss=loss,
        train_op=minimize(tape, loss, network.trainable_variables) if mode == ModeKeys.TRAIN else None,
        eval_metric_ops={"accuracy": tf.cast(predictions["classes"] == labels, tf.float32)},
    )


NOT_A_FUNCTION = 3


def broken_model_fn(features: Mapping[str, tf.Tensor]) -> EstimatorSpec:
    """Asks for a feature that is not there."""
    return EstimatorSpec(ModeKeys.PREDICT, predictions=features["x"])
