"""TF Serving's gRPC API: messages to the service's calls and back, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import grpc

from serving.models.batching import Caller
from serving.protocol import tensors
from serving.protocol.errors import Code, ServingError, invalid
from serving.protocol.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from serving.server.service import Service
from serving.server.telemetry.access_log import Record, Recorder

GRPC_CODES = {code: next(each for each in grpc.StatusCode if each.value[0] == code) for code in Code}
# What gRPC gives as the time that is left when a client set no deadline lies far beyond this.
NO_DEADLINE_S = 365 * 86400.0
MAX_MESSAGE_CHARS = 4096  # an error travels in a header, and those have limits

Answer = TypeVar("Answer")
Context: TypeAlias = grpc.ServicerContext


class _Servicer:
    """What both services share: counting, and errors as statuses."""

    def __init__(self, service: Service, recorder: Recorder) -> None:
        """Put the parts together."""
        self._service = service
        self._recorder = recorder

    def _answer(
        self, api: str, request: Any, context: Context, handle: Callable[[Record], Answer]
    ) -> Answer:
        try:
            with self._recorder.request("GRPC", api) as record:
                record.peer = context.peer()
                record.request_bytes = request.ByteSize()
                return handle(record)
        except ServingError as error:
            context.abort(GRPC_CODES[error.code], error.message[:MAX_MESSAGE_CHARS])
            raise  # abort never returns


def _note_spec(request: Any, record: Record) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    record.model = request.model_spec.name
    record.signature = request.model_spec.signature_name


def _caller(context: Context) -> Caller:
    left_s = context.time_remaining()
    has_deadline = left_s is not None and left_s < NO_DEADLINE_S
    return Caller(time.monotonic() + left_s if has_deadline else None, context.is_active)


class PredictionServicer(_Servicer, prediction_service_pb2_grpc.PredictionServiceServicer):
    """PredictionService."""

    def __init__(self, service: Service, recorder: Recorder, *, packed: bool = False) -> None:
        """As the other one; `packed` answers Predict with tensor_content instead of typed fields."""
        super().__init__(service, recorder)
        self._packed = packed

    def Predict(  # noqa: N802 (the names are the protocol's)
        self, request: predict_pb2.PredictRequest, context: Context
    ) -> predict_pb2.PredictResponse:
        """Tensors in, tensors out."""

        def handle(record: Record) -> predict_pb2.PredictResponse:
            _note_spec(request, record)
            inputs = {alias: tensors.to_array(value, alias) for alias, value in request.inputs.items()}
            prediction = self._service.predict(
                request.model_spec, inputs, request.output_filter, _caller(context)
            )
            record.version = str(prediction.model_spec.version.value)
            response = predict_pb2.PredictResponse(model_spec=prediction.model_spec)
            for alias, value in prediction.outputs.items():
                tensors.to_proto(value, response.outputs[alias], packed=self._packed)
            return response

        return self._answer("Predict", request, context, handle)

    def Classify(  # noqa: N802
        self, request: classification_pb2.ClassificationRequest, context: Context
    ) -> classification_pb2.ClassificationResponse:
        """Examples in, classes out."""

        def handle(record: Record) -> classification_pb2.ClassificationResponse:
            _note_spec(request, record)
            response = self._service.classify(request, _caller(context))
            record.version = str(response.model_spec.version.value)
            return response

        return self._answer("Classify", request, context, handle)

    def Regress(  # noqa: N802
        self, request: regression_pb2.RegressionRequest, context: Context
    ) -> regression_pb2.RegressionResponse:
        """Examples in, values out."""

        def handle(record: Record) -> regression_pb2.RegressionResponse:
            _note_spec(request, record)
            response = self._service.regress(request, _caller(context))
            record.version = str(response.model_spec.version.value)
            return response

        return self._answer("Regress", request, context, handle)

    def MultiInference(  # noqa: N802
        self, request: inference_pb2.MultiInferenceRequest, context: Context
    ) -> inference_pb2.MultiInferenceResponse:
        """Examples in, several answers out."""

        def handle(record: Record) -> inference_pb2.MultiInferenceResponse:
            if request.tasks:
                record.model = request.tasks[0].model_spec.name
            return self._service.multi_inference(request, _caller(context))

        return self._answer("MultiInference", request, context, handle)

    def GetModelMetadata(  # noqa: N802
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: Context
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures."""

        def handle(record: Record) -> get_model_metadata_pb2.GetModelMetadataResponse:
            _note_spec(request, record)
            return self._service.metadata(request)

        return self._answer("GetModelMetadata", request, context, handle)


class ModelServicer(_Servicer, model_service_pb2_grpc.ModelServiceServicer):
    """ModelService."""

    def GetModelStatus(  # noqa: N802
        self, request: get_model_status_pb2.GetModelStatusRequest, context: Context
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of the versions."""

        def handle(record: Record) -> get_model_status_pb2.GetModelStatusResponse:
            _note_spec(request, record)
            return self._service.status(request)

        return self._answer("GetModelStatus", request, context, handle)

    def HandleReloadConfigRequest(  # noqa: N802
        self, request: model_management_pb2.ReloadConfigRequest, context: Context
    ) -> model_management_pb2.ReloadConfigResponse:
        """Other models from now on."""

        def handle(record: Record) -> model_management_pb2.ReloadConfigResponse:
            del record
            self._service.reload(request)
            response = model_management_pb2.ReloadConfigResponse()
            response.status.error_code = Code.OK.value
            return response

        return self._answer("ReloadConfig", request, context, handle)
