"""The CNN: build_network makes the layers, model_fn says what they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from trainer.augmentation import RandomDeformation, RandomShift
from trainer.estimator import EstimatorModel, EstimatorSpec, ModeKeys, ModelFn, minimize
from trainer.features import CLASSES, IMAGE, LOGITS, PROBABILITIES
from trainer.normalization import FusedBatchNormalization
from trainer.optimizers import build_optimizer
from trainer.precision import resolve_precision
from trainer.recipes import Params

ImageShape = tuple[int, int, int]
BuildNetwork = Callable[[Params, ImageShape, int], keras.Model]


def build_network(params: Params, image_shape: ImageShape, num_classes: int) -> keras.Model:
    """Make the layers, with their variables.

    Args:
        params: the recipe; `precision` sets the dtype in which the layers compute.
        image_shape: height, width, channels.
        num_classes: C.

    Returns:
        A model from float32 [N, height, width, channels] in [0, 1] to logits, float32 [N, C].

    Raises:
        ValueError: for images that are too small for the network.
    """
    params.check_image_size(*image_shape[:2])
    images = keras.Input(image_shape, name=IMAGE)
    augment = augmentation(params)
    x = augment(images) if augment else images
    x = _BODIES[params.network](x, params)
    # Softmax and loss in bfloat16 would keep two digits: the logits are float32 in any precision.
    logits = keras.layers.Dense(num_classes, dtype="float32", name=LOGITS)(x)
    return keras.Model(images, logits, name=params.network)


def augmentation(params: Params) -> keras.layers.Layer | None:
    """The layer that changes images in training, float32 [N, H, W, 1] to the same; None: there is none."""
    if params.rotation or params.scale or params.shear or params.elastic:
        return RandomDeformation(
            params.rotation,
            params.scale,
            params.shear,
            params.shift,
            params.elastic,
            seed=params.seed,
            name="deformation",
        )
    if params.shift:
        return RandomShift(params.shift, seed=params.seed, name="shift")
    return None


def _tutorial(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """The network of TensorFlow 1.x's "Build a Convolutional Neural Network using Estimators"."""
    dtype = resolve_precision(params.precision)
    for block, filters in enumerate((32, 64), start=1):
        x = keras.layers.Conv2D(
            filters, 5, padding="same", activation="relu", dtype=dtype, name=f"conv{block}"
        )(x)
        x = keras.layers.MaxPooling2D(2, strides=2, dtype=dtype, name=f"pool{block}")(x)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    x = keras.layers.Dense(1024, activation="relu", dtype=dtype, name="dense")(x)
    return keras.layers.Dropout(params.dropout, seed=params.seed, dtype=dtype, name="dropout")(x)


def _compact(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """Few multiplications for its accuracy: both convolutions halve the image, none runs at full size."""
    dtype = resolve_precision(params.precision)
    for block, (filters, kernel) in enumerate(((32, 6), (64, 4)), start=1):
        x = keras.layers.Conv2D(
            filters, kernel, strides=2, use_bias=False, dtype=dtype, name=f"conv{block}"
        )(x)
        x = _normalized(x, dtype, block)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    x = keras.layers.Dense(128, use_bias=False, dtype=dtype, name="dense")(x)
    x = _normalized(x, dtype, block=3)
    return keras.layers.Dropout(params.dropout, seed=params.seed, dtype=dtype, name="dropout")(x)


def _deep(x: keras.KerasTensor, params: Params) -> keras.KerasTensor:
    """Five convolutions without padding, which leave 2 pixels of 28; the second halves the image.

    After the network M5 of An, Lee, Park, Yang and So, "An Ensemble of Simple Convolutional Neural Network
    Models for MNIST Digit Recognition" (arXiv 2008.10400), at a sixteenth of its multiplications.
    """
    dtype = resolve_precision(params.precision)
    layers = ((32, 5, 1), (48, 5, 2), (64, 5, 1), (96, 3, 1), (128, 3, 1))
    for block, (filters, kernel, strides) in enumerate(layers, start=1):
        convolution = keras.layers.Conv2D(
            filters, kernel, strides, use_bias=False, dtype=dtype, name=f"conv{block}"
        )
        x = _normalized(convolution(x), dtype, block)
        if strides > 1:
            x = keras.layers.Dropout(
                params.dropout, seed=params.seed + block, dtype=dtype, name=f"dropout{block}"
            )(x)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    return keras.layers.Dropout(params.dropout, seed=params.seed, dtype=dtype, name="dropout")(x)


def _normalized(x: keras.KerasTensor, dtype: str, block: int) -> keras.KerasTensor:
    # A few hundred steps must do for the running means: their default momentum, 0.99, is too slow.
    x = FusedBatchNormalization(momentum=0.9, dtype=dtype, name=f"norm{block}")(x)
    return keras.layers.ReLU(dtype=dtype, name=f"relu{block}")(x)


_BODIES: Mapping[str, Callable[[keras.KerasTensor, Params], keras.KerasTensor]] = {
    "tutorial": _tutorial,
    "compact": _compact,
    "deep": _deep,
}


def model_fn(
    features: Mapping[str, tf.Tensor],
    labels: tf.Tensor | None,
    mode: str,
    params: Params,
    network: keras.Model,
) -> EstimatorSpec:
    """The model in one of its three modes.

    Args:
        features: `image`: float32 [N, H, W, 1] in [0, 1].
        labels: int64 [N]; not read in PREDICT, where it may be None.
        mode: a ModeKeys value.
        params: the recipe.
        network: what build_network made.

    Returns:
        PREDICT: `predictions` = classes int64 [N], probabilities float32 [N, C], logits float32 [N, C].
        TRAIN and EVAL: the same, `loss`, the mean softmax cross entropy on the logits, and the accuracy.
        TRAIN alone: `train_op`, and the label smoothing of the recipe in the loss.

    Raises:
        ValueError: for labels missing in TRAIN or EVAL, or an unknown mode.
    """
    training = mode == ModeKeys.TRAIN
    with tf.GradientTape() as tape:
        logits = network(features[IMAGE], training=training)
        if mode == ModeKeys.PREDICT:
            return EstimatorSpec(mode, predictions=_predictions(logits))
        if labels is None:
            raise ValueError(f"Missing labels in mode {mode!r}.")
        loss = _cross_entropy(labels, logits, params.label_smoothing if training else 0.0)
    predictions = _predictions(logits)
    correct = tf.cast(tf.equal(predictions[CLASSES], tf.cast(labels, tf.int64)), tf.float32)
    return EstimatorSpec(
        mode,
        predictions=predictions,
        loss=loss,
        train_op=minimize(tape, loss, network.trainable_variables) if training else None,
        eval_metric_ops={"accuracy": correct},
    )


def build_model(
    params: Params,
    image_shape: ImageShape,
    num_classes: int,
    steps: int,
    model_fn: ModelFn = model_fn,
    build_network: BuildNetwork = build_network,
) -> EstimatorModel:
    """Make a compiled model, ready for Keras's fit on batches of ({"image": …}, labels).

    Args:
        params: the recipe; its seed makes weights, dropout and augmentation reproducible.
        image_shape: height, width, channels.
        num_classes: C.
        steps: optimizer steps that the learning rate's schedule spans.
        model_fn: the model function.
        build_network: makes the layers that the model function uses.
    """
    keras.utils.set_random_seed(params.seed)
    model = EstimatorModel(
        model_fn,
        build_network(params, image_shape, num_classes),
        params,
        num_classes=num_classes,
        # By this Keras decides whether the optimizer needs loss scaling.
        dtype=resolve_precision(params.precision),
    )
    model.compile(optimizer=build_optimizer(params, steps))
    return model


def _predictions(logits: tf.Tensor) -> dict[str, tf.Tensor]:
    return {
        CLASSES: tf.argmax(logits, axis=-1, output_type=tf.int64),
        PROBABILITIES: tf.nn.softmax(logits),
        LOGITS: logits,
    }


def _cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float) -> tf.Tensor:
    labels = tf.cast(labels, tf.int64)
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    if not smoothing:
        return loss
    # Cross entropy against the uniform distribution, which gets `smoothing` of the weight.
    uniform = -tf.reduce_mean(tf.nn.log_softmax(logits))
    return (1.0 - smoothing) * loss + smoothing * uniform
