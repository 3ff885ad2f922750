"""Predict, Classify, Regress and MultiInference on one loaded version, however it is run.

The server runs them through its batcher, warm-up runs them directly: `run` is what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving.models.servable import Servable
from serving.protocol import examples, signatures
from serving.protocol.errors import Code, ServingError, invalid
from serving.protocol.protos import classification_pb2, inference_pb2, input_pb2, model_pb2, regression_pb2
from serving.protocol.signatures import DEFAULT_SIGNATURE, Signature

# Servable, signature, outputs to fetch, checked inputs in the signature's order -> outputs in the order
# asked for.
Run = Callable[[Servable, Signature, tuple[str, ...], Sequence[np.ndarray]], list[np.ndarray]]


@dataclass(frozen=True)
class Prediction:
    """The answer of a Predict request."""

    model_spec: model_pb2.ModelSpec
    outputs: dict[str, np.ndarray]


def predict(
    servable: Servable,
    run: Run,
    signature_name: str,
    inputs: Mapping[str, np.ndarray],
    output_filter: Sequence[str] = (),
) -> Prediction:
    """Run a signature.

    Args:
        servable: the version to ask.
        run: runs it.
        signature_name: the signature; the empty name is the default one.
        inputs: by alias.
        output_filter: the outputs to give; all when empty.

    Raises:
        ServingError: as TF Serving says it.
    """
    signature = signatures.find(servable.signatures, signature_name)
    values = signature.checked_inputs(inputs)
    wanted = signature.checked_outputs(output_filter)
    outputs = run(servable, signature, wanted, [values[alias] for alias in signature.inputs])
    return Prediction(_answered_by(servable, signature), dict(zip(wanted, outputs, strict=True)))


def classify(
    servable: Servable, run: Run, request: classification_pb2.ClassificationRequest
) -> classification_pb2.ClassificationResponse:
    """Classes and scores of examples."""
    signature = examples.find(servable.signatures, request.model_spec.signature_name)
    wanted = examples.classify_outputs(signature)
    count, outputs = _run_examples(servable, run, signature, wanted, request.input)
    response = classification_pb2.ClassificationResponse(model_spec=_answered_by(servable, signature))
    examples.classification(outputs, count, response.result)
    return response


def regress(
    servable: Servable, run: Run, request: regression_pb2.RegressionRequest
) -> regression_pb2.RegressionResponse:
    """Values of examples."""
    signature = examples.find(servable.signatures, request.model_spec.signature_name)
    wanted = examples.regress_outputs(signature)
    count, outputs = _run_examples(servable, run, signature, wanted, request.input)
    response = regression_pb2.RegressionResponse(model_spec=_answered_by(servable, signature))
    examples.regression(outputs[wanted[0]], count, response.result)
    return response


def multi_inference(
    servable: Servable, run: Run, request: inference_pb2.MultiInferenceRequest
) -> inference_pb2.MultiInferenceResponse:
    """Several classifications and regressions of the same examples."""
    planned: dict[str, tuple[Signature, tuple[str, ...], bool]] = {}
    for task in request.tasks:
        signature, wanted, is_classify = _plan(servable, task, request.tasks[0].model_spec.name)
        if signature.name in planned:
            raise invalid(f"Duplicate evaluation of signature: {signature.name}")
        planned[signature.name] = signature, wanted, is_classify
    answers = [
        _run_examples(servable, run, signature, wanted, request.input)
        for signature, wanted, _ in planned.values()
    ]
    response = inference_pb2.MultiInferenceResponse()
    for (signature, wanted, is_classify), (count, outputs) in zip(planned.values(), answers, strict=True):
        result = response.results.add(model_spec=_answered_by(servable, signature))
        if is_classify:
            examples.classification(outputs, count, result.classification_result)
        else:
            examples.regression(outputs[wanted[0]], count, result.regression_result)
    return response


def _plan(
    servable: Servable, task: inference_pb2.InferenceTask, model_name: str
) -> tuple[Signature, tuple[str, ...], bool]:
    """Signature, outputs, and whether it classifies."""
    spec = task.model_spec
    if not spec.name:
        raise invalid("Found ModelSpec with an empty model name.")
    if spec.name != model_name:
        raise invalid("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
    name = spec.signature_name or DEFAULT_SIGNATURE
    if name not in servable.signatures:
        raise invalid(f"Requested signature not found in model graph: {name}")
    signature = servable.signatures[name]
    if task.method_name == examples.CLASSIFY_METHOD:
        return signature, examples.classify_outputs(signature), True
    if task.method_name == examples.REGRESS_METHOD:
        return signature, examples.regress_outputs(signature), False
    raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")


def _run_examples(
    servable: Servable, run: Run, signature: Signature, wanted: tuple[str, ...], given: input_pb2.Input
) -> tuple[int, dict[str, np.ndarray]]:
    """The number of examples, and the outputs for them."""
    serialized = examples.serialized_examples(given)
    values = signature.checked_inputs({examples.INPUTS: serialized})
    outputs = run(servable, signature, wanted, [values[alias] for alias in signature.inputs])
    return len(serialized), dict(zip(wanted, outputs, strict=True))


def _answered_by(servable: Servable, signature: Signature) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=servable.name, signature_name=signature.name)
    spec.version.value = servable.version
    return spec
