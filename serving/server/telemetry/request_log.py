"""Requests and their answers as TFRecord files of PredictionLog: what monitoring and warm-up files are made
of.

A sample of the requests is written by a thread of its own. A file grows under the name `….tfrecord.partial`
and is renamed when it is complete, so that a reader of `*.tfrecord` never meets half a record.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serving.models.inference import Prediction
from serving.models.runtime import tf
from serving.protocol import tensors
from serving.protocol.protos import (
    classification_pb2,
    inference_pb2,
    model_pb2,
    prediction_log_pb2,
    regression_pb2,
)
from serving.server.telemetry.metrics import Counter

log = logging.getLogger(__name__)

MAX_WAITING = 1024  # entries; more are dropped, and counted
PARTIAL = ".partial"


@dataclass(frozen=True)
class RequestLogConfig:
    """Where to, how many, how big."""

    folder: Path
    sampling_rate: float = 1.0  # share of the requests
    max_file_bytes: int = 64 * 2**20
    max_file_age_s: float = 300.0


class RequestLog:
    """Writes PredictionLogs."""

    def __init__(self, config: RequestLogConfig, count: Counter) -> None:
        """Make the folder and start the thread.

        Args:
            config: where to, how many, how big.
            count: counts by model and status: OK, or RESOURCE_EXHAUSTED when the disk did not keep up.

        Raises:
            OSError: when the folder cannot be made.
        """
        config.folder.mkdir(parents=True, exist_ok=True)
        self._config = config
        self._count = count
        self._entries: queue.Queue[Callable[[], prediction_log_pb2.PredictionLog] | None] = queue.Queue(
            MAX_WAITING
        )
        self._writer: tf.io.TFRecordWriter | None = None
        self._path = config.folder
        self._opened = 0.0
        self._written_bytes = 0
        self._thread = threading.Thread(target=self._work, name="request-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits and complete the file."""
        self._entries.put(None)
        self._thread.join()

    def predict(
        self,
        inputs: Mapping[str, np.ndarray],
        output_filter: tuple[str, ...],
        prediction: Prediction,
    ) -> None:
        """Log a Predict request, or not, by chance."""

        def entry() -> prediction_log_pb2.PredictionLog:
            record = prediction_log_pb2.PredictionLog()
            request, response = record.predict_log.request, record.predict_log.response
            request.model_spec.CopyFrom(prediction.model_spec)
            request.output_filter.extend(output_filter)
            response.model_spec.CopyFrom(prediction.model_spec)
            for values, target in ((inputs, request.inputs), (prediction.outputs, response.outputs)):
                for alias, value in values.items():
                    tensors.to_proto(value, target[alias])
            return record

        self._offer(prediction.model_spec, entry)

    def classify(
        self,
        request: classification_pb2.ClassificationRequest,
        response: classification_pb2.ClassificationResponse,
    ) -> None:
        """Log a Classify request, or not, by chance."""

        def entry() -> prediction_log_pb2.PredictionLog:
            log_entry = prediction_log_pb2.ClassifyLog(request=request, response=response)
            return prediction_log_pb2.PredictionLog(classify_log=log_entry)

        self._offer(response.model_spec, entry)

    def regress(
        self, request: regression_pb2.RegressionRequest, response: regression_pb2.RegressionResponse
    ) -> None:
        """Log a Regress request, or not, by chance."""

        def entry() -> prediction_log_pb2.PredictionLog:
            log_entry = prediction_log_pb2.RegressLog(request=request, response=response)
            return prediction_log_pb2.PredictionLog(regress_log=log_entry)

        self._offer(response.model_spec, entry)

    def multi_inference(
        self, request: inference_pb2.MultiInferenceRequest, response: inference_pb2.MultiInferenceResponse
    ) -> None:
        """Log a MultiInference request, or not, by chance."""

        def entry() -> prediction_log_pb2.PredictionLog:
            log_entry = prediction_log_pb2.MultiInferenceLog(request=request, response=response)
            return prediction_log_pb2.PredictionLog(multi_inference_log=log_entry)

        self._offer(response.results[0].model_spec, entry)

    def _offer(
        self, spec: model_pb2.ModelSpec, entry: Callable[[], prediction_log_pb2.PredictionLog]
    ) -> None:
        if random.random() >= self._config.sampling_rate:
            return
        answered_at = int(time.time())

        def stamped() -> prediction_log_pb2.PredictionLog:
            record = entry()
            record.log_metadata.model_spec.CopyFrom(spec)
            record.log_metadata.sampling_config.sampling_rate = self._config.sampling_rate
            record.log_metadata.timestamp_secs = answered_at
            return record

        try:
            self._entries.put_nowait(stamped)
        except queue.Full:
            self._count.add(spec.name, "RESOURCE_EXHAUSTED")
        else:
            self._count.add(spec.name, "OK")

    def _work(self) -> None:
        while True:
            try:
                entry = self._entries.get(timeout=self._config.max_file_age_s / 10)
            except queue.Empty:
                self._rotate_if_due()
                continue
            if entry is None:
                self._complete()
                return
            try:
                self._write(entry().SerializeToString())
            except Exception:  # a full disk must not end the log for good, nor the server
                log.exception("a request could not be logged")
                self._complete()
            self._rotate_if_due()

    def _write(self, record: bytes) -> None:
        if self._writer is None:
            name = (
                f"requests-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.monotonic_ns()}.tfrecord"
            )
            self._path = self._config.folder / name
            self._writer = tf.io.TFRecordWriter(f"{self._path}{PARTIAL}")
            self._opened, self._written_bytes = time.monotonic(), 0
        self._writer.write(record)
        self._written_bytes += len(record)

    def _rotate_if_due(self) -> None:
        is_old = time.monotonic() - self._opened > self._config.max_file_age_s
        if self._writer is not None and (is_old or self._written_bytes >= self._config.max_file_bytes):
            self._complete()

    def _complete(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
            Path(f"{self._path}{PARTIAL}").rename(self._path)
        except (OSError, tf.errors.OpError):
            log.exception("%s could not be completed", self._path)
        self._writer = None
