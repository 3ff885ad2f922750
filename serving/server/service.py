"""What TF Serving's API does, without a transport: REST and gRPC translate to these calls and back.

Every method takes and gives TF Serving's messages or NumPy arrays, and raises ServingError. The inference
methods block the thread that calls them until there is an answer; what tells that nobody waits for it any
more, a deadline or a client that has gone, is in their Caller.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np

from serving.models import inference
from serving.models.batching import Batcher, Caller
from serving.models.config_file import models_of
from serving.models.inference import Prediction
from serving.models.loader import Loader
from serving.models.servable import Servable
from serving.protocol.errors import Code, ServingError, invalid
from serving.protocol.protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    regression_pb2,
)
from serving.protocol.signatures import DEFAULT_SIGNATURE, Tensor
from serving.server.telemetry.request_log import RequestLog

SIGNATURE_DEF = "signature_def"
SAMPLES_FILE = "assets.extra/samples.json"


class Service:
    """The API."""

    def __init__(
        self,
        loader: Loader,
        batcher: Batcher,
        request_log: RequestLog | None = None,
        reload_timeout_s: float = 60.0,
    ) -> None:
        """Put the parts together.

        Args:
            loader: the models.
            batcher: runs them.
            request_log: keeps answered requests.
            reload_timeout_s: how long a reload of the configuration waits for new models.
        """
        self._loader = loader
        self._batcher = batcher
        self._request_log = request_log
        self._reload_timeout_s = reload_timeout_s

    def predict(
        self,
        spec: model_pb2.ModelSpec,
        inputs: Mapping[str, np.ndarray],
        output_filter: Sequence[str],
        caller: Caller,
    ) -> Prediction:
        """Run a signature on inputs by alias; an empty filter gives all outputs."""
        with self._servable(spec) as servable:
            run = self._run_for(caller)
            prediction = inference.predict(servable, run, spec.signature_name, inputs, output_filter)
        if self._request_log is not None:
            self._request_log.predict(inputs, tuple(output_filter), prediction)
        return prediction

    def classify(
        self, request: classification_pb2.ClassificationRequest, caller: Caller
    ) -> classification_pb2.ClassificationResponse:
        """Classes and scores of examples."""
        with self._servable(request.model_spec) as servable:
            response = inference.classify(servable, self._run_for(caller), request)
        if self._request_log is not None:
            self._request_log.classify(request, response)
        return response

    def regress(
        self, request: regression_pb2.RegressionRequest, caller: Caller
    ) -> regression_pb2.RegressionResponse:
        """Values of examples."""
        with self._servable(request.model_spec) as servable:
            response = inference.regress(servable, self._run_for(caller), request)
        if self._request_log is not None:
            self._request_log.regress(request, response)
        return response

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, caller: Caller
    ) -> inference_pb2.MultiInferenceResponse:
        """Several classifications and regressions of the same examples, by one version of one model."""
        spec = request.tasks[0].model_spec if request.tasks else model_pb2.ModelSpec()
        with self._servable(spec) as servable:
            response = inference.multi_inference(servable, self._run_for(caller), request)
        if self._request_log is not None:
            self._request_log.multi_inference(request, response)
        return response

    def metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a model."""
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for name in request.metadata_field:
            if name != SIGNATURE_DEF:
                raise invalid(f"Metadata field {name} is not supported")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._servable(request.model_spec) as servable:
            response.model_spec.name = servable.name
            response.model_spec.version.value = servable.version
            definitions = get_model_metadata_pb2.SignatureDefMap()
            for name, signature in servable.signatures.items():
                definitions.signature_def[name].CopyFrom(signature.definition)
            response.metadata[SIGNATURE_DEF].Pack(definitions)
        return response

    def status(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of a model's versions, newest first."""
        response = get_model_status_pb2.GetModelStatusResponse()
        spec = request.model_spec
        # Like TF Serving, a status knows no labels.
        version, _ = _version_and_label(spec)
        for each in self._loader.status(spec.name, version):
            line = response.model_version_status.add()
            line.version = each.version
            line.state = each.state.value
            line.status.error_code = each.error.code.value if each.error else Code.OK.value
            line.status.error_message = each.error.message if each.error else ""
        return response

    def reload(self, request: model_management_pb2.ReloadConfigRequest) -> None:
        """Serve other models from now on; blocks until they answer."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest."
                " Only ModelConfigList is currently supported"
            )
        self._loader.configure(models_of(request.config), self._reload_timeout_s)

    def inputs_of(self, spec: model_pb2.ModelSpec) -> dict[str, Tensor]:
        """The inputs of a signature: what a transport without types needs in order to read a request.

        Raises:
            ServingError: INVALID_ARGUMENT for an unknown signature, which is what TF Serving's REST API
                says.
        """
        with self._servable(spec) as servable:
            name = spec.signature_name or DEFAULT_SIGNATURE
            if name not in servable.signatures:
                raise invalid(f'Serving signature name: "{name}" not found in signature def')
            return servable.signatures[name].inputs

    @property
    def ready(self) -> bool:
        """Whether every model has a version that answers."""
        return self._loader.ready

    def samples(self) -> bytes | None:
        """Images for the page to show: those of the first model whose newest version brings some along.

        Returns:
            JSON: height, width, channels, digits (whether the page draws), and samples with label, name and
            pixels (uint8, row-major, in base64).
        """
        for name in self._loader.names:
            try:
                with self._loader.use(name) as servable:
                    return (servable.folder / SAMPLES_FILE).read_bytes()
            except (ServingError, OSError):
                continue
        return None

    def _run_for(self, caller: Caller) -> inference.Run:
        return functools.partial(self._batcher.run, caller)

    def _servable(self, spec: model_pb2.ModelSpec) -> AbstractContextManager[Servable]:
        return self._loader.use(spec.name, *_version_and_label(spec))


def _version_and_label(spec: model_pb2.ModelSpec) -> tuple[int | None, str | None]:
    choice = spec.WhichOneof("version_choice")
    if choice == "version":
        return spec.version.value, None
    return None, spec.version_label if choice == "version_label" else None
