"""Layers that networks share, and that Keras has not or has slower."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from trainer.features import DEFAULT_IMAGE_SHAPE
from trainer.recipes import Params


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer, its variables and its meaning, in one operation instead of a dozen.

    Keras 3 has no fused path. In the `deep` network on a CPU the dozen took a third of a training step.
    The running variance is the unbiased one, as in Keras 2.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, **kwargs: Any) -> tf.Tensor:  # noqa: ARG002
        """Normalise [N, …, C] over all axes but the last, in float32 whatever the inputs are."""
        shape = tf.shape(inputs)
        # The kernel wants four dimensions.
        x = tf.reshape(inputs, [shape[0], -1, 1, inputs.shape[-1]]) if inputs.shape.rank != 4 else inputs
        learned = (self.gamma.value, self.beta.value)
        if training and self.trainable:
            x, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                x, *learned, epsilon=self.epsilon, is_training=True
            )[:3]
            context = tf.distribute.get_replica_context()
            if context is not None and context.num_replicas_in_sync > 1:
                # Each replica normalises by its own share; what evaluation uses is the same for all.
                mean, variance = context.all_reduce(tf.distribute.ReduceOp.MEAN, [mean, variance])
            for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                running.assign(running * self.momentum + batch * (1 - self.momentum))
        else:
            x = tf.compat.v1.nn.fused_batch_norm(
                x,
                *learned,
                mean=self.moving_mean.value,
                variance=self.moving_variance.value,
                epsilon=self.epsilon,
                is_training=False,
            )[0]
        return tf.reshape(x, shape) if inputs.shape.rank != 4 else x


def doublings(height: int, width: int) -> int:
    """How often images are at least twice as large as MNIST's 28 pixels: 56 once, 112 twice."""
    return max(0, (min(height, width) // DEFAULT_IMAGE_SHAPE.height).bit_length() - 1)


def kernel_initializer(params: Params) -> keras.initializers.Initializer:
    """A new initializer, for one layer's kernel, as the recipe asks for it."""
    if params.initializer == "unit_scaling":
        # TensorFlow's uniform_unit_scaling_initializer.
        return keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
    return keras.initializers.GlorotUniform()


class Dropout(keras.layers.Dropout):
    """Keras's layer, with its random numbers drawn in float32 whatever the inputs are.

    Keras draws them in the dtype of the inputs. In bfloat16 they have seven bits: a rate of 0.4 leaves out
    40.6 % of the units and scales the rest by 1 / 0.6, which makes their mean 1.1 % too small.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Leave out a share of the units in training, and scale the others."""
        return tf.cast(super().call(tf.cast(inputs, tf.float32), training=training), inputs.dtype)


def normalized(x: keras.KerasTensor, dtype: str, block: int) -> keras.KerasTensor:
    """Batch normalisation and ReLU, after a layer without bias."""
    # A few hundred steps must do for the running means: their default momentum, 0.99, is too slow.
    x = FusedBatchNormalization(momentum=0.9, dtype=dtype, name=f"norm{block}")(x)
    return keras.layers.ReLU(dtype=dtype, name=f"relu{block}")(x)
