"""Several workers on this machine: how a training for a cluster is tried without one."""

from __future__ import annotations

import functools
import json
import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from trainer.processes import ProcessError, call_together

TF_CONFIG = "TF_CONFIG"  # TensorFlow's own: who trains together, and which of them a process is


class WorkerError(RuntimeError):
    """One worker failed, and with it the training; the text says which, and its own last words."""


def train_together(train: Callable[[], None], count: int) -> None:
    """Call a training in as many processes, which find each other by TF_CONFIG; the first is the chief.

    Args:
        train: picklable.
        count: processes.

    Raises:
        WorkerError: for the first worker that failed; the others have been ended.
    """
    addresses = _free_addresses(count)
    calls = [functools.partial(as_worker, train, addresses, index) for index in range(count)]
    try:
        call_together(calls, [f"worker {index} of {count}: " for index in range(count)])
    except ProcessError as error:
        raise WorkerError(str(error)) from None


def as_worker(train: Callable[[], None], addresses: Sequence[str], index: int) -> None:
    """Call a training in this process, which is from now on one of several workers.

    Args:
        train: the training.
        addresses: host:port of each worker.
        index: which of them this process is; 0 is the chief.
    """
    task = {"type": "worker", "index": index}
    os.environ[TF_CONFIG] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    if index:
        # All workers make the same steps.
        logging.getLogger("trainer.progress").setLevel(logging.WARNING)
    train()


def _free_addresses(count: int) -> list[str]:
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
