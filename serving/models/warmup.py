"""Warm-up: a new version answers recorded requests before it takes real ones.

`assets.extra/tf_serving_warmup_requests` is a TFRecord file of PredictionLog messages, as TF Serving reads
it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from google.protobuf.message import DecodeError

from serving.models import inference
from serving.models.runtime import tf
from serving.models.servable import Servable, as_serving_error
from serving.protocol import tensors
from serving.protocol.errors import Code, ServingError, invalid
from serving.protocol.protos import prediction_log_pb2
from serving.protocol.signatures import Signature

log = logging.getLogger(__name__)

REQUESTS_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000  # TF Serving's


def warm_up(servable: Servable, times: int = 1) -> None:
    """Answer the requests of a model's warm-up file; a model without one is taken as it is.

    Args:
        servable: the version.
        times: how often each request is answered.

    Raises:
        ServingError: when the file or one of its requests is bad: such a version must not serve.
    """
    path = servable.folder / REQUESTS_FILE
    if not path.exists():
        log.info("%s: version %d has no warm-up requests", servable.name, servable.version)
        return
    try:
        records = list(tf.data.TFRecordDataset(str(path)).take(MAX_RECORDS + 1).as_numpy_iterator())
    except tf.errors.OpError as error:
        raise as_serving_error(error) from error
    if len(records) > MAX_RECORDS:
        raise invalid(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}")
    for record in records:
        try:
            entry = prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError:
            raise invalid(f"Failed to parse warmup record from {path}") from None
        for _ in range(times):
            _replay(servable, entry)
    log.info("%s: version %d answered %d warm-up requests", servable.name, servable.version, len(records))


def _replay(servable: Servable, entry: prediction_log_pb2.PredictionLog) -> None:
    kind = entry.WhichOneof("log_type")
    if kind == "predict_log":
        request = entry.predict_log.request
        inputs = {alias: tensors.to_array(value, alias) for alias, value in request.inputs.items()}
        inference.predict(
            servable, _directly, request.model_spec.signature_name, inputs, request.output_filter
        )
    elif kind == "classify_log":
        inference.classify(servable, _directly, entry.classify_log.request)
    elif kind == "regress_log":
        inference.regress(servable, _directly, entry.regress_log.request)
    elif kind == "multi_inference_log":
        inference.multi_inference(servable, _directly, entry.multi_inference_log.request)
    elif kind is not None:
        raise ServingError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")


def _directly(
    servable: Servable, signature: Signature, outputs: tuple[str, ...], values: Sequence[np.ndarray]
) -> list[np.ndarray]:
    return servable.run(signature, outputs, values)
