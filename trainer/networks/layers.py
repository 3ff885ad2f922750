"""Layers that networks share, and that Keras has not or has slower."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
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
        beta = self.beta.value
        learned = (self.gamma.value if self.scale else tf.ones_like(beta), beta)
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


class IdentityFirst(keras.initializers.Initializer):
    """Of a convolution: its first filters pass the channels on as they are, the others are another's."""

    def __init__(self, others: keras.initializers.Initializer) -> None:
        """Make it; `others` draws the kernel whose first filters are replaced."""
        self.others = others

    def __call__(self, shape: Any, dtype: Any = None) -> tf.Tensor:
        """A kernel [height, width, channels, filters]."""
        height, width, channels, filters = shape
        same = np.zeros(shape, np.float32)
        first = min(channels, filters)
        same[height // 2, width // 2, range(first), range(first)] = 1
        learned = tf.constant(np.arange(filters) >= first, tf.float32)
        return tf.cast(same + learned * tf.cast(self.others(shape), tf.float32), dtype or tf.float32)


class Whitening(keras.layers.Layer):
    """A convolution of 2 x 2 that makes neighbouring values independent of each other, of deviation 1.

    Its kernel is not learned: `adapt` computes it from pictures. Its filters come in both signs, because
    what follows cuts the negative values off. Computed in float32.
    """

    _SIDE = 2
    _LEAST_VARIANCE = 5e-4

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the kernel and the bias, which is learned."""
        channels = int(input_shape[-1] or 0)
        filters = 2 * self._SIDE**2 * channels
        self.kernel = self.add_weight(
            shape=(self._SIDE, self._SIDE, channels, filters),
            initializer="orthogonal",
            trainable=False,
            name="kernel",
        )
        self.bias = self.add_weight(shape=(filters,), initializer="zeros", name="bias")

    def adapt(self, inputs: tf.Tensor) -> None:
        """Compute the kernel from what the layer gets: [N, H, W, C]."""
        ones = (1, 1, 1, 1)
        patches = tf.image.extract_patches(inputs, (1, self._SIDE, self._SIDE, 1), ones, ones, "VALID")
        patches = tf.reshape(patches, [-1, patches.shape[-1]])
        covariance = tf.matmul(patches, patches, transpose_a=True) / tf.cast(
            tf.shape(patches)[0], tf.float32
        )
        variances, directions = tf.linalg.eigh(covariance)
        filters = directions / tf.sqrt(variances + self._LEAST_VARIANCE)
        both = tf.concat([filters, -filters], axis=1)
        self.kernel.assign(tf.reshape(both, self.kernel.shape))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[N, H, W, C] to [N, H - 1, W - 1, 8 C]."""
        return tf.nn.conv2d(inputs, self.kernel.value, 1, "VALID") + self.bias.value

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """One pixel less in each direction."""
        count, height, width, channels = (side or 0 for side in input_shape)
        return (count or None, height - 1, width - 1, 2 * self._SIDE**2 * channels)


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


class Views(keras.layers.Layer):
    """Outside of training, each image in several views, all of one view after all of another."""

    def __init__(self, mirror: bool, shift: int, **kwargs: Any) -> None:
        """Make the layer.

        Args:
            mirror: whether the mirror image of each view is one too.
            shift: pixels by which the image is moved to the upper left, and to the lower right; what moves
                in is its own border, mirrored. 0: it is not moved.
            **kwargs: keras.layers.Layer's own.
        """
        super().__init__(**kwargs)
        self.mirror, self.shift = mirror, shift
        self.count = (3 if shift else 1) * (2 if mirror else 1)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[N, H, W, C] to [count N, H, W, C]; the images as they are in training."""
        if training:
            return images
        views = [images]
        if self.shift:
            _, height, width, _ = images.shape
            border, far = (self.shift, self.shift), 2 * self.shift
            padded = tf.pad(images, [(0, 0), border, border, (0, 0)], "REFLECT")
            views += [padded[:, far:, far:], padded[:, :height, :width]]
        if self.mirror:
            views += [view[:, :, ::-1] for view in views]
        return tf.concat(views, axis=0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The batch is of any size."""
        return (None, *input_shape[1:])


class MeanOfViews(keras.layers.Layer):
    """The mean of what was computed from the views of each image: N again."""

    def __init__(self, count: int, **kwargs: Any) -> None:
        """Make the layer, for so many views of an image."""
        super().__init__(**kwargs)
        self.count = count

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[count N, F] to [N, F]; as it is in training."""
        if training:
            return x
        return tf.reduce_mean(tf.reshape(x, [self.count, -1, x.shape[-1]]), axis=0)


class LocalResponseNormalization(keras.layers.Layer):
    """tf.nn.local_response_normalization as TensorFlow's deep CNN tutorial has it; float32 inside."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Divide each value of [N, H, W, C] by a sum over nine channels of the same place."""
        wide = tf.cast(x, tf.float32)
        return tf.cast(tf.nn.local_response_normalization(wide, 4, 1.0, 0.001 / 9.0, 0.75), x.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shapes do not change."""
        return input_shape


class PerImageStandardization(keras.layers.Layer):
    """tf.image.per_image_standardization of images in [0, 1], as it is of 0 … 255."""

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """[N, H, W, C] to the same, of mean 0 and deviation 1."""
        return tf.image.per_image_standardization(images * 255.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Shapes do not change."""
        return input_shape


def adapt(network: keras.Model, images: tf.Tensor) -> None:
    """Let layers that are computed from pictures, such as Whitening, look at some of the training split.

    Args:
        network: whose layers have an `adapt`, if any.
        images: float32 [N, H, W, C] in [0, 1].
    """
    for layer in network.layers:
        if isinstance(layer, Whitening):
            layer.adapt(keras.Model(network.input, layer.input)(images))
