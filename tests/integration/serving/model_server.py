"""A server on the project's own model, for the tests of what asks it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_S = 180.0  # TensorFlow alone takes a minute to import on a machine with much else to do


@dataclass(frozen=True)
class Server:
    """Where a running server listens."""

    rest_port: int
    grpc_port: int
    process: subprocess.Popen[bytes]


@dataclass(frozen=True)
class Served:
    """A server, and the version of the model `mnist` that it serves."""

    server: Server
    version: int


@contextmanager
def running(
    model_dir: Path, scratch: Path, *arguments: str, within: tuple[str, ...] = ()
) -> Iterator[Server]:
    """Serve a folder of versions on free ports; stopped at the end.

    Args:
        model_dir: the folder.
        scratch: for the server's log, `server.log`.
        arguments: more of the command line.
        within: a command that starts the server, as `prlimit --nofile=1024` does.
    """
    ready, log = scratch / "ready.json", scratch / "server.log"
    command = [*within, sys.executable, "-m", "serving", "--model-dir", str(model_dir), "--rest-port", "0"]
    command += ["--port", "0", "--ready-file", str(ready), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            ends_at = time.monotonic() + READY_S
            while not ready.exists():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < ends_at, log.read_text()
                time.sleep(0.05)
            ports = json.loads(ready.read_text())
            yield Server(ports["rest_port"], ports["grpc_port"], process)
        finally:
            process.terminate()
            process.wait(READY_S)
