"""A model's signatures: what a request must look like before TensorFlow sees it.

As in TF Serving, types and shapes are left to the graph, which says itself what it does not take. Only
where a wrong rank could abort the whole process instead (see models.guard) it is refused before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from serving.protocol import dtypes, image_headers, tensors
from serving.protocol.dtypes import DType
from serving.protocol.errors import Code, ServingError, invalid
from serving.protocol.protos import meta_graph_pb2

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Tensor:
    """An input or output of a signature."""

    name: str  # in the graph, e.g. pixels_image:0
    dtype: DType
    shape: tuple[int | None, ...] | None  # None: of any rank; a None inside: of any size

    @classmethod
    def of(cls, info: meta_graph_pb2.TensorInfo) -> Tensor:
        """From a SignatureDef's TensorInfo."""
        shape = info.tensor_shape
        dims = tuple(None if dim.size < 0 else int(dim.size) for dim in shape.dim)
        is_known = info.HasField("tensor_shape") and not shape.unknown_rank
        return cls(info.name, dtypes.of_number(info.dtype), dims if is_known else None)

    def check_rank(self, alias: str, value: np.ndarray) -> None:
        """Refuse a value of another rank than the declared one, and an empty one.

        Raises:
            ServingError: INVALID_ARGUMENT, with the expected and the given shape.
        """
        if self.shape is not None and len(self.shape) != value.ndim:
            raise invalid(
                f'input "{alias}" expects shape {shape_text(self.shape)}'
                f" but {shape_text(value.shape)} is provided"
            )
        if value.size == 0:
            raise invalid(f'input "{alias}" is empty: {shape_text(value.shape)}')


class Signature:
    """One function of a model, as its SignatureDef describes it."""

    def __init__(self, name: str, definition: meta_graph_pb2.SignatureDef, guarded: bool = False) -> None:
        """Read the definition.

        Args:
            name: the signature's key.
            definition: from the SavedModel's meta graph.
            guarded: hold inputs to their declared ranks: others could end the process.
        """
        self.name = name
        self.guarded = guarded
        self.definition = definition
        self.inputs = {alias: Tensor.of(info) for alias, info in sorted(definition.inputs.items())}
        self.outputs = {alias: Tensor.of(info) for alias, info in sorted(definition.outputs.items())}
        self.defaults = {
            alias: tensors.to_array(value, alias)
            for alias, value in definition.defaults.items()
            if alias in self.inputs
        }

    def checked_inputs(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs to feed, defaults filled in.

        Raises:
            ServingError: INVALID_ARGUMENT for missing and surplus inputs, for pictures of absurd sizes, and
                for misshapen inputs of a guarded signature.
        """
        if len(given) > len(self.inputs) or (len(given) < len(self.inputs) and not self.defaults):
            raise invalid(self._count_message(given))
        for alias in given:
            if alias not in self.inputs:
                raise invalid(
                    f"input tensor alias not found in signature: {alias}."
                    f" Inputs expected to be in the set {{{','.join(self.inputs)}}}."
                )
        values = {**self.defaults, **given}
        missing = self.inputs.keys() - values.keys()
        if missing:
            raise invalid(self._count_message(given))
        for alias, tensor in self.inputs.items():
            if self.guarded:
                tensor.check_rank(alias, values[alias])
            if values[alias].dtype == object:
                image_headers.check_sizes(values[alias])
        return values

    def checked_outputs(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """The aliases to fetch: all of them when none is named.

        Raises:
            ServingError: INVALID_ARGUMENT for an unknown or a repeated alias.
        """
        aliases = tuple(wanted)
        for position, alias in enumerate(aliases):
            if alias not in self.outputs:
                raise invalid(
                    f"output tensor alias not found in signature: {alias}"
                    f" Outputs expected to be in the set {{{','.join(self.outputs)}}}."
                )
            if alias in aliases[:position]:
                raise invalid(f"duplicate output tensor alias: {alias}")
        return aliases or tuple(self.outputs)

    def _count_message(self, given: Mapping[str, np.ndarray]) -> str:
        names, expected = sorted(given), list(self.inputs)
        extra = ",".join(name for name in names if name not in self.inputs)
        missing = ",".join(name for name in expected if name not in given)
        return (
            f"input size does not match signature: {len(names)}!={len(expected)}"
            f" len({{{','.join(names)}}}) != len({{{','.join(expected)}}})."
            f" Sent extra: {{{extra}}}. Missing but required: {{{missing}}}."
        )


def find(signatures: Mapping[str, Signature], name: str) -> Signature:
    """A signature by name; the empty name is the default one.

    Raises:
        ServingError: FAILED_PRECONDITION in TF Serving's words.
    """
    name = name or DEFAULT_SIGNATURE
    if name not in signatures:
        raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return signatures[name]


def shape_text(shape: tuple[int | None, ...]) -> str:
    """A shape as TensorFlow writes it: [?,28,28]."""
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"
