"""The serving signatures: raw inputs through Transform's graph and the network, in one SavedModel.

Every input is checked in the graph, before the network sees it: a convolution that is fed the wrong rank
can abort the whole process (TensorFlow issue 111453), and a server does not check shapes for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft

from trainer import features, independence
from trainer.estimator import ModeKeys
from trainer.estimator_model import EstimatorModel
from trainer.export_outputs import DEFAULT, ExportedAs, ExportOutput, PredictOutput
from trainer.features import ImageInput
from trainer.serving_inputs import ServingInputs
from trainer.warm_start import WEIGHTS


@dataclass(frozen=True)
class _Untracked:
    """Keeps an object out of a SavedModel that is not a part of it."""

    value: Any


class ServingModule(tf.Module):
    """What the SavedModel consists of: Transform's graph, the trained variables, a function a signature."""

    def __init__(
        self,
        model: EstimatorModel,
        images: ImageInput,
        class_names: Sequence[str],
        transform: tft.TFTransformOutput,
    ) -> None:
        """Put the parts together.

        Args:
            model: with trained variables, in float32; what it predicts is what the signatures answer.
            images: what Transform's graph reads.
            class_names: by label.
            transform: Transform's output.
        """
        super().__init__(name="serving")
        self._model = _Untracked(model)
        self._inputs = ServingInputs(images, transform)
        self._class_names = _Untracked(list(class_names))
        self._exports = _Untracked({})
        self._exported = _Untracked({})

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Trace the functions; inputs and outputs are those of trainer.features and the model's exports."""
        specs = self._inputs.specs()
        examples = tf.TensorSpec([None], tf.string, name=features.EXAMPLES)
        found = {
            name: _traced(function, spec)
            for name, function, spec in (
                (features.SIGNATURE_IMAGE_BYTES, self._from_files, specs[features.SIGNATURE_IMAGE_BYTES]),
                (features.SIGNATURE_DECODE, self._decoded, specs[features.SIGNATURE_DECODE]),
                (features.SIGNATURE_PIXELS, self._from_pixels, specs[features.SIGNATURE_PIXELS]),
                (features.SIGNATURE_FLOATS, self._from_floats, specs[features.SIGNATURE_FLOATS]),
                (features.SIGNATURE_EXAMPLES, self._from_examples, examples),
            )
        }
        for name, output in self._exports.value.items():
            if name == DEFAULT:
                continue
            if name in found:
                raise ValueError(
                    f"export_outputs: {name!r} is the name of a signature that every model has"
                )
            spec = tf.TensorSpec([None], tf.string, name=output.input_name)
            found[name] = _traced(functools.partial(self._export, name), spec)
            self._exported.value[name] = ExportedAs(output.method, output.input_name)
        # As an attribute: a SavedModel keeps only what it can reach from its root.
        used = {id(one): one for traced in found.values() for one in traced.variables}
        names = {
            id(one.value if isinstance(one, keras.Variable) else one): name
            for name, one in self._model.value.named_variables().items()
        }
        # By name, so that another training can be warm-started from a SavedModel.
        setattr(self, WEIGHTS, {names[key]: one for key, one in used.items() if key in names})
        self._others = [one for key, one in used.items() if key not in names]
        return found

    @property
    def exports(self) -> Mapping[str, ExportedAs]:
        """The signatures out of `export_outputs`."""
        found: Mapping[str, ExportedAs] = self._exported.value
        return found

    def _from_files(self, image_bytes: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return self._predict(self._inputs.from_files(image_bytes))

    def _decoded(self, image_bytes: tf.Tensor) -> Mapping[str, tf.Tensor]:
        images = self._inputs.decoded(image_bytes)
        names = tf.constant(self._class_names.value)
        # A row for each image, as TF Serving's row format wants it.
        return {
            features.IMAGE: images,
            features.NAMES: tf.tile(names[None, :], [tf.shape(images)[0], 1]),
        }

    def _from_pixels(self, image: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return self._predict(self._inputs.from_pixels(image))

    def _from_floats(self, image: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return self._predict(self._inputs.from_floats(image))

    def _from_examples(self, examples: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return self._predict(self._inputs.from_examples(_images(examples)))

    def _export(self, name: str, examples: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return self._outputs(self._inputs.from_examples(_images(examples)), name)

    def _predict(self, images: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return self._outputs(images, DEFAULT)

    def _outputs(self, images: tf.Tensor, export: str) -> Mapping[str, tf.Tensor]:
        # oneDNN's convolutions give an empty batch a wrong shape: it gets one blank image.
        count = tf.shape(images)[0]
        blanks = tf.zeros([tf.cast(tf.equal(count, 0), tf.int32), *images.shape[1:]], images.dtype)
        inputs = {features.IMAGE: tf.concat([images, blanks], 0)}
        spec = self._model.value.spec(inputs, None, ModeKeys.PREDICT)
        self._exports.value.update(spec.export_outputs)
        chosen: ExportOutput = spec.export_outputs[export]
        # Images always get the predictions; scores alone would be too little for the Evaluator.
        plain = export == DEFAULT and not isinstance(chosen, PredictOutput)
        tensors: Mapping[str, tf.Tensor] = spec.prediction_dict if plain else chosen.tensors
        if export == DEFAULT:
            tensors = self._named(tensors)
        return {name: value[:count] for name, value in tensors.items()}

    def _named(self, predictions: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
        """With the names of the classes, where the model function says classes and has no such output."""
        classes = predictions.get(features.CLASSES)
        if classes is None or not classes.dtype.is_integer or features.CLASS_NAMES in predictions:
            return predictions
        names = tf.gather(tf.constant(self._class_names.value), classes)
        return {**predictions, features.CLASS_NAMES: names}


def export(
    directory: str,
    model: EstimatorModel,
    images: ImageInput,
    class_names: Sequence[str],
    transform: tft.TFTransformOutput,
) -> Mapping[str, ExportedAs]:
    """Write the SavedModel with its signatures, and of which of them requests may be joined.

    Args:
        directory: where to; made if it is not there.
        model: with trained variables, in float32.
        images: what Transform's graph reads.
        class_names: by label.
        transform: Transform's output.

    Returns:
        The signatures out of the model function's `export_outputs`, by name.

    Raises:
        ValueError: for an export output whose name is taken.
    """
    with model.graph_variables.found_again():
        module = ServingModule(model, images, class_names, transform)
        signatures = module.signatures()
    tf.saved_model.save(module, directory, signatures=signatures)
    # TensorFlow 2 writes the method of Predict into each.
    others = {name: to.method for name, to in module.exports.items() if to.method != PredictOutput.method}
    if others:
        updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(directory)
        for name, method in others.items():
            updater.replace_method_name(signature_key=name, method_name=method)
        updater.save(directory)
    independence.write(directory, signatures, images)
    return module.exports


def _traced(
    function: Callable[[tf.Tensor], Mapping[str, tf.Tensor]], spec: tf.TensorSpec
) -> tf.types.experimental.ConcreteFunction:
    # By position: a signature's input is called as the spec is.
    def traced(inputs: tf.Tensor) -> Mapping[str, tf.Tensor]:
        return function(inputs)

    return tf.function(traced, autograph=False).get_concrete_function(spec)


def _images(examples: tf.Tensor) -> tf.Tensor:
    # Without the label: an example may have one, but nobody who asks for it needs to know it.
    spec = {features.IMAGE: tf.io.FixedLenFeature([], tf.string)}
    return tf.io.parse_example(tf.ensure_shape(examples, [None]), spec)[features.IMAGE]
