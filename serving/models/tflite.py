"""One loaded version of a TF Lite model, as TF Serving serves it with `--prefer_tflite_model`.

An interpreter holds the tensors of the one request that it runs, so there is a pool of them.
"""

from __future__ import annotations

import os
import queue
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from serving.models.folders import TFLITE_FILE
from serving.models.runtime import tf, tflite_schema
from serving.models.servable import Servable
from serving.protocol.errors import Code, ServingError, invalid
from serving.protocol.protos import meta_graph_pb2
from serving.protocol.signatures import DEFAULT_SIGNATURE, Signature, shape_text

# Where TF Lite's signature_def_util keeps them: a map from key to serialized SignatureDef.
SIGNATURES_METADATA = b"signature_defs_metadata"
PREDICT_METHOD = "tensorflow/serving/predict"

# TensorFlow points to another package, in each call.
warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated", UserWarning)


class TfLiteServable(Servable):
    """A version whose `model.tflite` is run by TF Lite's interpreter."""

    def __init__(
        self, name: str, version: int, folder: Path, op_threads: int = 1, interpreters: int = 1
    ) -> None:
        """Load the model.

        Args:
            name: the model's name.
            version: its version.
            folder: where model.tflite lies.
            op_threads: that share the work of one operation; 0: one a core.
            interpreters: requests that run at a time; more wait.

        Raises:
            ServingError: with TF Lite's own words, when it cannot be loaded.
        """
        self._interpreters = interpreters
        super().__init__(name, version, folder, op_threads)

    def _independent(self) -> frozenset[str]:
        """None: what a SavedModel in the same folder says of itself is not said of this model."""
        return frozenset()

    def _open(self, op_threads: int) -> dict[str, Signature]:
        """Load the model; its signatures by key."""
        self._threads = op_threads or os.cpu_count() or 1
        # Of None stands for one that is made when it is needed.
        self._pool: queue.LifoQueue[Any | None] = queue.LifoQueue()
        try:
            self._content = (self.folder / TFLITE_FILE).read_bytes()
            interpreter = self._interpreter()
            interpreter.allocate_tensors()  # says which operations it does not know
            inputs = {each["name"]: each for each in interpreter.get_input_details()}
            outputs = {each["name"]: each for each in interpreter.get_output_details()}
            definitions = stored_signatures(self._content)
            for key, definition in definitions.items():
                _fix_names(key, "input", definition.inputs, inputs)
                _fix_names(key, "output", definition.outputs, outputs)
            definitions = definitions or {DEFAULT_SIGNATURE: generated_signature(inputs, outputs)}
        except ServingError:
            raise
        except Exception as error:  # whatever a broken file leads to
            raise ServingError(Code.INVALID_ARGUMENT, f"{TFLITE_FILE}: {error}") from error
        self._index_of = {name: each["index"] for name, each in {**inputs, **outputs}.items()}
        for _ in range(self._interpreters - 1):
            self._pool.put(None)
        self._pool.put(interpreter)
        return {key: Signature(key, definition) for key, definition in sorted(definitions.items())}

    def _close(self) -> None:
        """Nothing: the interpreters go with this object."""

    def _interpreter(self) -> Any:
        return tf.lite.Interpreter(model_content=self._content, num_threads=self._threads)

    def run(
        self, signature: Signature, outputs: tuple[str, ...], values: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Run a signature; releases the GIL while it computes.

        Args:
            signature: one of ours.
            outputs: the aliases to fetch.
            values: checked inputs, in the order of the signature's inputs.

        Returns:
            The outputs, in the order of `outputs`.

        Raises:
            ServingError: INVALID_ARGUMENT for an input without elements or of another type, INTERNAL for
                what the interpreter itself refuses; with its words.
        """
        for alias, value in zip(signature.inputs, values, strict=True):
            if value.size == 0:  # ends the process in TF Lite's convolutions and pooling
                raise invalid(f'input "{alias}" is empty: {shape_text(value.shape)}')
        interpreter = self._pool.get()
        failed = True
        try:
            interpreter = interpreter or self._interpreter()
            answer = self._run(interpreter, signature, outputs, values)
            failed = False
            return answer
        except ValueError as error:
            raise invalid(str(error)) from error
        except RuntimeError as error:
            raise ServingError(Code.INTERNAL, str(error)) from error
        finally:
            self._pool.put(None if failed else interpreter)

    def _run(
        self, interpreter: Any, signature: Signature, outputs: tuple[str, ...], values: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        indices = [self._index_of[tensor.name] for tensor in signature.inputs.values()]
        for index, value in zip(indices, values, strict=True):
            interpreter.resize_tensor_input(index, value.shape)
        interpreter.allocate_tensors()  # does nothing where no size has changed
        for index, value in zip(indices, values, strict=True):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        return [interpreter.get_tensor(self._index_of[signature.outputs[alias].name]) for alias in outputs]


def stored_signatures(content: bytes) -> dict[str, Any]:
    """The SignatureDefs in the metadata of a TF Lite file, by key; empty where it has none."""
    model = tflite_schema.Model.GetRootAs(content)
    for position in range(model.MetadataLength()):
        metadata = model.Metadata(position)
        if metadata.Name() == SIGNATURES_METADATA:
            stored = flexbuffers.GetRoot(model.Buffers(metadata.Buffer()).DataAsNumpy().tobytes()).AsMap
            return {
                key.AsKey: meta_graph_pb2.SignatureDef.FromString(bytes(value.AsStringBytes))
                for key, value in zip(stored.Keys, stored.Values, strict=True)
            }
    return {}


def generated_signature(inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
    """A SignatureDef that names tensors as they are named in the graph, less the index of an output.

    Args:
        inputs: details of tensors by name, as the interpreter gives them.
        outputs: as well.
    """
    definition = meta_graph_pb2.SignatureDef(method_name=PREDICT_METHOD)
    for tensors, infos in ((inputs, definition.inputs), (outputs, definition.outputs)):
        for name, details in tensors.items():
            info = infos[_without_index(name)]
            info.name = name
            info.dtype = tf.as_dtype(details["dtype"]).as_datatype_enum
            for size in details["shape"]:
                info.tensor_shape.dim.add(size=int(size))
    return definition


def _fix_names(key: str, kind: str, infos: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Let a stored signature name tensors as the file does: early converters left the `:0` away."""
    for alias, info in infos.items():
        if info.name not in tensors:
            info.name = _without_index(info.name)
        if info.name not in tensors:
            raise invalid(f"{TFLITE_FILE}: {kind} {alias} of signature {key} is of an unknown tensor")


def _without_index(name: str) -> str:
    return name.partition(":")[0]
