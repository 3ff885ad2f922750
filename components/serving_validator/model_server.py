"""A model server in a process of its own, on free ports of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.serving_validator import standby, tied
from components.serving_validator.checks import MachineError, RefusedError
from serving.client import Client
from serving.protocol.errors import ServingError

HOST = "127.0.0.1"
MODEL = "candidate"
START_S = 120.0  # to import TensorFlow, load a model and warm it up on a busy machine
STOP_S = 20.0
_POLL_S = 0.1


@dataclass(frozen=True)
class Ports:
    """Where the server listens."""

    rest: int
    grpc: int


class Server:
    """A server that was started."""

    def __init__(self, process: subprocess.Popen[bytes] | standby.Standby, ports: Ports, log: Path) -> None:
        """It may still import TensorFlow."""
        self._process, self._ports, self._log = process, ports, log

    def ports(self) -> Ports:
        """Wait until both APIs answer.

        Raises:
            checks.MachineError: where the server ends, or takes too long.
            checks.RefusedError: where it says that it cannot load the model.
        """
        ends_at = time.monotonic() + START_S
        waiting = {"rest": self._ports.rest, "grpc": self._ports.grpc}
        while waiting:
            code = self._process.poll()
            if code is not None:
                raise MachineError(f"the server ended with code {code}: {_last_line(self._log)}")
            if time.monotonic() > ends_at:
                raise MachineError(
                    f"the model was not available after {START_S:.0f} s: {_last_line(self._log)}"
                )
            transport, port = next(iter(waiting.items()))
            if _is_available(transport, port):
                del waiting[transport]
            else:
                time.sleep(_POLL_S)
        return self._ports


@contextmanager
def serving(base: Path, binary: str, log: Path) -> Iterator[Server]:
    """Serve the versions below `base` under the name MODEL; the server starts while the caller works.

    Args:
        base: folder of version folders.
        binary: path of a tensorflow_model_server; empty: the project's own server.
        log: file for what the server says.
    """
    ports = Ports(*_free_ports(2))
    process = _start(base, binary, ports, log)
    try:
        yield Server(process, ports, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _start(base: Path, binary: str, ports: Ports, log: Path) -> subprocess.Popen[bytes] | standby.Standby:
    if binary:
        command = [binary, f"--port={ports.grpc}", f"--rest_api_port={ports.rest}"]
        command += [f"--model_name={MODEL}", f"--model_base_path={base}"]
    else:
        options = ["--host", HOST, "--model-name", MODEL, "--model-dir", str(base)]
        options += ["--rest-port", str(ports.rest), "--port", str(ports.grpc)]
        waiting = standby.take()
        if waiting is not None:
            waiting.serve(options, log)
            return waiting
        command = [sys.executable, "-m", "serving", *options]
    with log.open("wb") as output:
        # Its own process group: a Ctrl-C on the terminal is the run's business, which then ends the server.
        return subprocess.Popen(
            [sys.executable, "-IS", tied.__file__, *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
            start_new_session=True,
        )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


def _is_available(transport: str, port: int) -> bool:
    with Client(HOST, port, transport, model=MODEL, timeout_s=5.0, attempts=1) as client:  # type: ignore[arg-type]
        try:
            versions = client.status()
        except ServingError:  # not listening yet, or nothing known of the model yet
            return False
    for version in versions:
        if version.error:
            raise RefusedError(f"the server cannot load the model: {version.error.splitlines()[0]}")
    return any(version.state == "AVAILABLE" for version in versions)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
