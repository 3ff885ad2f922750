"""Features of a frozen base: computed once, so that an epoch of the layers after it takes a second.

They lie in a file that is mapped into memory, so that memory does not grow with the data.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from trainer import batches
from trainer.batches import Split
from trainer.estimator_model import EstimatorModel
from trainer.features import IMAGE
from trainer.fit import Splits
from trainer.networks.layers import MeanOfViews, Views
from trainer.networks.retrain import FEATURES
from trainer.recipes import Params

_BATCH = 100  # images; a base makes large maps of each

_LOG = logging.getLogger(__name__)


def is_frozen(network: object) -> bool:
    """Whether a network has a base, none of whose layers are trained."""
    if not isinstance(network, keras.Model) or all(layer.name != FEATURES for layer in network.layers):
        return False
    return not keras.Model(network.inputs, network.get_layer(FEATURES).output).trainable_variables


def head_of(network: keras.Model) -> keras.Model:
    """The layers after the base, from features [N, F] to logits; they are the network's own."""
    at = [layer.name for layer in network.layers].index(FEATURES)
    features = keras.Input(network.layers[at].output.shape[1:], name=IMAGE)
    x = features
    for layer in network.layers[at + 1 :]:
        # Features of the validation split are such means already.
        if not isinstance(layer, MeanOfViews):
            x = layer(x)
    return keras.Model(features, x, name="head")


def compute(model: EstimatorModel, params: Params, splits: Splits, folder: str) -> Splits:
    """The features of both splits, in files below a folder of this machine.

    Args:
        model: with a network that is_frozen.
        params: the recipe: with `flip` the training split has each image's mirror image too; the
            validation split has the means of an image's views, where the recipe has several.
        splits: of images.
        folder: where to.
    """
    network = model.given_network
    assert network is not None
    body = keras.Model(network.inputs, network.get_layer(FEATURES).output)
    views = next((layer for layer in network.layers if isinstance(layer, Views)), None)
    if views:
        # Of one view each.
        body = keras.Model(views.output, network.get_layer(FEATURES).output)
    features_of = tf.function(lambda images: body(images, training=False), autograph=False)
    began = time.monotonic()
    train = _computed(splits, splits.train, features_of, Path(folder, "train.npy"), params.flip, None)
    validation = _computed(
        splits, splits.validation, features_of, Path(folder, "validation.npy"), False, views
    )
    _LOG.info(
        "features of %d images in %.1f s", splits.train.size + splits.validation.size,
        time.monotonic() - began,
    )  # fmt: skip
    return Splits(train, validation, splits.transform)


def _computed(
    splits: Splits, split: Split, features_of: tf.types.experimental.GenericFunction, path: Path,
    both: bool, views: Views | None,
) -> Split:  # fmt: skip
    """A split of features: of each image, and of the mirror images behind them, or means of the views."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = split.size * (2 if both else 1)
    labels = np.zeros(size, np.int64)
    kept: np.memmap | None = None
    at = 0
    for inputs, label in batches.evaluation_batches(split, splits.transform, _BATCH):
        images = inputs[IMAGE]
        if views:
            found = MeanOfViews(views.count)(features_of(views(images))).numpy()
        else:
            found = features_of(images).numpy()
        if kept is None:
            kept = np.lib.format.open_memmap(path, "w+", np.float32, (size, found.shape[1]))
        here = slice(at, at + len(found))
        kept[here], labels[here] = found, label
        if both:
            behind = slice(split.size + at, split.size + at + len(found))
            kept[behind], labels[behind] = features_of(images[:, :, ::-1]).numpy(), label
        at += len(found)
    assert kept is not None
    kept.flush()
    return replace(split, size=size, images=None, labels=tf.constant(labels), computed=kept)
