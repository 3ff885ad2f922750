"""What is kept of requests."""

from __future__ import annotations

import pytest

from serving.protocol.errors import Code, ServingError
from serving.server.telemetry.access_log import Recorder
from serving.server.telemetry.metrics import Metrics


def test_names_that_clients_make_up_are_counted_together() -> None:
    recorder = Recorder(Metrics(), knows=lambda name: name == "m")

    def fail(name: str) -> None:
        with recorder.request("REST", "Predict") as record:
            record.model = name
            raise ServingError(Code.NOT_FOUND, "no")

    for name in ("m", "x1", "x2"):
        with pytest.raises(ServingError):
            fail(name)
    page = recorder.metrics.page().decode()
    assert 'model_name="m",status="NOT_FOUND",version=""} 1.0' in page
    assert 'model_name="",status="NOT_FOUND",version=""} 2.0' in page
    assert "x1" not in page
