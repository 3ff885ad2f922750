"""The request log: a sample, in files that are complete once they have their name."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, model_pb2, prediction_log_pb2, regression_pb2

from serving.models.inference import Prediction
from serving.server.telemetry.metrics import Counter
from serving.server.telemetry.request_log import PARTIAL, RequestLog, RequestLogConfig

SPEC = model_pb2.ModelSpec(name="m", signature_name="serving_default")
ANSWER = Prediction(SPEC, {"y": np.array([3.0], np.float32)})


def read(folder: Path) -> list[prediction_log_pb2.PredictionLog]:
    files = sorted(map(str, folder.glob("*.tfrecord")))
    records = tf.data.TFRecordDataset(files).as_numpy_iterator() if files else []
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in records]


def log_some(log: RequestLog, count: int) -> None:
    for number in range(count):
        log.predict({"x": np.array([number], np.float32)}, ("y",), ANSWER)


@pytest.fixture
def count() -> Counter:
    return Counter("logged", "", ("model_name", "status"))


def wait_for(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.01)


def test_requests_are_kept_in_their_order(tmp_path: Path, count: Counter) -> None:
    log = RequestLog(RequestLogConfig(tmp_path / "new"), count)
    log_some(log, 20)
    log.close()
    records = read(tmp_path / "new")
    assert [record.predict_log.request.inputs["x"].float_val[0] for record in records] == list(range(20))
    assert records[0].predict_log.request.output_filter == ["y"]
    assert records[0].predict_log.response.outputs["y"].float_val == [3.0]
    assert count.total() == 20


def test_a_sample(tmp_path: Path, count: Counter) -> None:
    log = RequestLog(RequestLogConfig(tmp_path, sampling_rate=0.25), count)
    log_some(log, 800)
    log.close()
    records = read(tmp_path)
    assert 120 < len(records) < 280
    assert records[0].log_metadata.sampling_config.sampling_rate == 0.25


def test_files_are_ended_when_they_are_big(tmp_path: Path, count: Counter) -> None:
    log = RequestLog(RequestLogConfig(tmp_path, max_file_bytes=500), count)
    log_some(log, 50)
    log.close()
    assert len(list(tmp_path.glob("*.tfrecord"))) > 5
    assert len(read(tmp_path)) == 50
    assert not list(tmp_path.glob(f"*{PARTIAL}"))


def test_files_are_ended_when_they_are_old(tmp_path: Path, count: Counter) -> None:
    log = RequestLog(RequestLogConfig(tmp_path, max_file_age_s=0.1), count)
    log_some(log, 1)
    wait_for(lambda: len(read(tmp_path)) == 1)
    log_some(log, 1)
    log.close()
    assert len(list(tmp_path.glob("*.tfrecord"))) == 2


def test_other_kinds_of_request(tmp_path: Path, count: Counter) -> None:
    log = RequestLog(RequestLogConfig(tmp_path), count)
    log.classify(
        classification_pb2.ClassificationRequest(),
        classification_pb2.ClassificationResponse(model_spec=SPEC),
    )
    log.regress(regression_pb2.RegressionRequest(), regression_pb2.RegressionResponse(model_spec=SPEC))
    log.close()
    assert [record.WhichOneof("log_type") for record in read(tmp_path)] == ["classify_log", "regress_log"]


def test_a_folder_that_is_gone_does_not_stop_the_server(tmp_path: Path, count: Counter) -> None:
    folder = tmp_path / "logs"
    log = RequestLog(RequestLogConfig(folder, max_file_bytes=1), count)
    log_some(log, 1)
    wait_for(lambda: len(read(folder)) == 1)
    folder.rename(tmp_path / "elsewhere")
    log_some(log, 3)
    wait_for(lambda: log._entries.empty())
    (tmp_path / "elsewhere").rename(folder)
    log_some(log, 1)
    log.close()
    assert len(read(folder)) >= 2
