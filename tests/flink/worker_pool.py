"""A pool of Python workers for several task managers on one machine.

python -m tests.flink.worker_pool PORT
"""

from __future__ import annotations

import sys
from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer


class WorkerPool(BeamFnExternalWorkerPoolServicer):
    """Beam's pool, with threads for workers, so that TensorFlow is imported once.

    Each task manager numbers its workers from 1, so one that stops its own would stop another's. In a
    cluster each has a pool of its own; here, workers end with the connection that controls them.
    """

    def StopWorker(  # noqa: N802 (Beam's name)
        self,
        stop_worker_request: beam_fn_api_pb2.StopWorkerRequest,  # noqa: ARG002
        unused_context: Any,  # noqa: ARG002
    ) -> beam_fn_api_pb2.StopWorkerResponse:
        return beam_fn_api_pb2.StopWorkerResponse()


if __name__ == "__main__":
    _, server = WorkerPool.start(port=int(sys.argv[1]))
    server.wait_for_termination()
