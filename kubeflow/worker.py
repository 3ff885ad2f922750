"""What runs in the other pods of a training; see kubeflow.worker_pods."""

from __future__ import annotations

import argparse
import functools
import json
import os
from pathlib import Path
from typing import NoReturn

from kubeflow import entrypoint, rendezvous
from trainer.workers import as_worker

RENDEZVOUS = "RENDEZVOUS"  # environment variable: URL of the first pod
STEP = "STEP"  # environment variable: the file that says what to do, the last of those that come from there


def main() -> NoReturn:
    """Train with the first pod's files; exit codes as the step's entrypoint. What is written stays here."""
    index = int(os.environ["JOB_COMPLETION_INDEX"]) + 1
    entrypoint.end_with(f"worker {index}", functools.partial(train, index))


def train(index: int) -> None:
    """Fetch the files, and train with them as one of several workers."""
    root = os.environ.get(entrypoint.ROOT_VARIABLE, "/")
    addresses = rendezvous.join(os.environ[RENDEZVOUS], index, root)
    file = Path(os.environ[STEP])
    if not file.exists():
        raise rendezvous.RendezvousError("the first pod has gone before all of its files were here")
    step = json.loads(file.read_text())
    arguments = argparse.Namespace(**step["arguments"])
    as_worker(
        functools.partial(entrypoint.execute, arguments, step["beam_args"], step["remote"]),
        addresses,
        index,
    )


if __name__ == "__main__":
    main()
