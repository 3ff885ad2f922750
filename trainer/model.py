"""The CNN: build_network makes the layers, model_fn says what they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from trainer.augmentation import augmentation
from trainer.estimator import EstimatorSpec, ModeKeys, RunConfig, minimize
from trainer.estimator_model import EstimatorModel
from trainer.export_outputs import ClassificationOutput, ExportOutput, PredictOutput
from trainer.features import (
    CLASSES,
    IMAGE,
    LOGITS,
    PROBABILITIES,
    SIGNATURE_CLASSIFY,
    SIGNATURE_IMAGE_BYTES,
    ImageShape,
)
from trainer.model_function import ModelFunction
from trainer.networks import NETWORKS
from trainer.networks.layers import MeanOfViews, Views, kernel_initializer
from trainer.optimizers import build_optimizer
from trainer.precision import precision_of
from trainer.recipes import Params

BuildNetwork = Callable[[Params, ImageShape, int], keras.Model]


def build_network(params: Params, image_shape: ImageShape, num_classes: int) -> keras.Model:
    """Make the layers, with their variables.

    Args:
        params: the recipe; `precision` sets the dtype in which the layers compute.
        image_shape: of the images.
        num_classes: C.

    Returns:
        A model from float32 [N, height, width, channels] in [0, 1] to logits, float32 [N, C].

    Raises:
        ValueError: for images that are too small or too large for the network, a base that cannot be read,
            or one that is taken as it is and has other classes.
    """
    params.check_image_size(image_shape)
    images = keras.Input(image_shape, name=IMAGE)
    x = images
    for layer in augmentation(params):
        x = layer(x)
    views = Views(params.mirror, params.answer_shift, name="views")
    if views.count > 1:
        x = views(x)
    known = NETWORKS[params.network]
    x = known.build(x, params)
    if views.count > 1:
        x = MeanOfViews(views.count, dtype="float32", name="mean_of_views")(x)
    if known.trains:
        # Softmax and loss in bfloat16 would keep two digits: the logits are float32 in any precision.
        last = keras.layers.Dense(
            num_classes,
            kernel_initializer=known.logits_initializer() or kernel_initializer(params),
            dtype="float32",
            name=LOGITS,
        )
        x = last(x)
    elif x.shape[-1] != num_classes:
        raise ValueError(
            f"trainer.base={params.base} knows {x.shape[-1]} classes and the data have {num_classes}: "
            f"labels must be its own (data.num_classes={x.shape[-1]}; for some of its class folders "
            "data.names=FILE with all of its names), or take recipe retrain"
        )
    return keras.Model(images, x, name=params.network)


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
        PREDICT: `predictions` = classes int64 [N], probabilities float32 [N, C], logits float32 [N, C]; and
        `classify` for TF Serving's API of that name.
        TRAIN and EVAL: the same, `loss`, the mean softmax cross entropy on the logits, and the accuracy.
        TRAIN alone: `train_op`; and in the loss the label smoothing of the recipe and the network's
        regularizers.

    Raises:
        ValueError: for labels missing in TRAIN or EVAL, or an unknown mode.
    """
    training = mode == ModeKeys.TRAIN
    with tf.GradientTape() as tape:
        logits = network(features[IMAGE], training=training)
        if mode == ModeKeys.PREDICT:
            predictions = _predictions(logits)
            return EstimatorSpec(mode, predictions, export_outputs=_exports(predictions))
        if labels is None:
            raise ValueError(f"Missing labels in mode {mode!r}.")
        loss = _cross_entropy(labels, logits, params.label_smoothing if training else 0.0)
        if training and network.losses:
            # Of regularizers, such as a weight decay that a network brings.
            loss += tf.add_n(network.losses)
    predictions = _predictions(logits)
    correct = tf.cast(tf.equal(predictions[CLASSES], tf.cast(labels, tf.int64)), tf.float32)
    return EstimatorSpec(
        mode,
        predictions=predictions,
        loss=loss,
        train_op=minimize(tape, loss, network.trainable_variables) if training else None,
        eval_metric_ops={"accuracy": correct},
    )


_OURS = model_fn


def build_model(
    params: Params,
    image_shape: ImageShape,
    num_classes: int,
    steps: int,
    model_fn: Callable[..., EstimatorSpec] = model_fn,
    build_network: BuildNetwork = build_network,
    config: RunConfig | None = None,
) -> EstimatorModel:
    """Make a compiled model, ready for Keras's fit on batches of ({"image": …}, labels).

    Args:
        params: the recipe; its seed makes weights, dropout and augmentation reproducible.
        image_shape: of the images.
        num_classes: C.
        steps: optimizer steps that the learning rate's schedule spans.
        model_fn: the model function.
        build_network: makes the layers that the model function uses; not called for a function that has no
            argument `network`, which makes its variables itself.
        config: of the run, for the model function.

    Raises:
        ValueError: for a model function with other arguments than it may have, or layers that are no model.
    """
    keras.utils.set_random_seed(params.seed)
    function = ModelFunction(model_fn)
    network = build_network(params, image_shape, num_classes) if function.takes_network else None
    if function.takes_network and not isinstance(network, keras.Model):
        raise ValueError(
            "build_network must return a keras.Model of images, which the model function calls; it "
            f"returned a {type(network).__name__}"
        )
    model = EstimatorModel(
        function,
        network,
        params,
        metric_names=("accuracy",) if model_fn is _OURS else (),
        num_classes=num_classes,
        config=config,
        # By this Keras decides whether the optimizer needs loss scaling.
        dtype=precision_of(network),
    )
    model.compile(optimizer=build_optimizer(params, steps))
    return model


def _predictions(logits: tf.Tensor) -> dict[str, tf.Tensor]:
    return {
        CLASSES: tf.argmax(logits, axis=-1, output_type=tf.int64),
        PROBABILITIES: tf.nn.softmax(logits),
        LOGITS: logits,
    }


def _exports(predictions: dict[str, tf.Tensor]) -> dict[str, ExportOutput]:
    scores = predictions[PROBABILITIES]
    names = tf.as_string(tf.range(tf.shape(scores)[1]))
    return {
        SIGNATURE_IMAGE_BYTES: PredictOutput(predictions),
        SIGNATURE_CLASSIFY: ClassificationOutput(scores, tf.tile(names[None, :], [tf.shape(scores)[0], 1])),
    }


def _cross_entropy(labels: tf.Tensor, logits: tf.Tensor, smoothing: float) -> tf.Tensor:
    labels = tf.cast(labels, tf.int64)
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    if not smoothing:
        return loss
    # Cross entropy against the uniform distribution, which gets `smoothing` of the weight.
    uniform = -tf.reduce_mean(tf.nn.log_softmax(logits))
    return (1.0 - smoothing) * loss + smoothing * uniform
