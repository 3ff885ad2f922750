"""A standalone Flink on this machine: a job manager, task managers, and a pool of Python workers."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
START_S = 90.0
# Flink's serializers look into classes of Java that Java 17 hides otherwise.
OPENED = (
    "lang",
    "lang.invoke",
    "lang.reflect",
    "io",
    "net",
    "nio",
    "text",
    "time",
    "util",
    "util.concurrent",
)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def eventually(probe: Callable[[], T | None], seconds: float, what: str) -> T:
    """What the probe finds, as soon as it finds something.

    Raises:
        TimeoutError: when it finds nothing for so long.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = probe()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not within {seconds:.0f} s")


@dataclass
class Cluster:
    """A running cluster; `task_managers` may be killed."""

    folder: Path
    jar: Path
    rest_port: int = field(default_factory=free_port)
    rpc_port: int = field(default_factory=free_port)
    pool_port: int = field(default_factory=free_port)
    task_managers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _others: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def master(self) -> str:
        """host:port for beam.flink.master."""
        return f"127.0.0.1:{self.rest_port}"

    @property
    def worker_pool(self) -> str:
        """host:port for beam.flink.worker_pool."""
        return f"localhost:{self.pool_port}"

    def get(self, path: str) -> Any:
        """What Flink's REST API answers, None while it does not."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self.master}{path}") as answer:
            return json.loads(answer.read())
        return None

    def slots(self) -> int:
        """Task slots, free or not."""
        overview = self.get("/overview")
        return overview["slots-total"] if overview else 0

    def busy(self, name: str) -> str | None:
        """The id of the job of a name, once tasks of it run."""
        answer = self.get("/jobs/overview")
        jobs = answer["jobs"] if answer else []
        return next((j["jid"] for j in jobs if j["name"] == name and j["tasks"]["running"]), None)

    def state(self, job: str) -> str:
        """The state of a job, in Flink's word."""
        state: str = self.get(f"/jobs/{job}")["state"]
        return state

    def failures(self, job: str) -> list[str]:
        """What Flink survived in a job, oldest first."""
        history = self.get(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]
        return [entry["exceptionName"] for entry in reversed(history)]

    def _start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=_environment())

    def _java(self, name: str, heap_mib: int, main: str) -> subprocess.Popen[bytes]:
        opens = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPENED]
        arguments = [
            f"-Xmx{heap_mib}m",
            *opens,
            "-cp",
            str(self.jar),
            main,
            "--configDir",
            str(self.folder),
        ]
        return self._start(name, "java", *arguments)

    def start(self, task_managers: int) -> None:
        """Start everything and wait until all slots are there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = _SETTINGS | {
            "jobmanager.rpc.port": self.rpc_port,
            "rest.port": self.rest_port,
            "io.tmp.dirs": self.folder / "tmp",
        }
        lines = [f"{key}: {value}\n" for key, value in settings.items()]
        (self.folder / "config.yaml").write_text("".join(lines))
        self._others.append(self._java("job-manager", 512, JOB_MANAGER))
        for number in range(task_managers):
            self.task_managers.append(self._java(f"task-manager-{number}", 512, TASK_MANAGER))
        pool = ["-m", "tests.flink.worker_pool", str(self.pool_port)]
        self._others.append(self._start("worker-pool", sys.executable, *pool))
        expected = task_managers * _SETTINGS["taskmanager.numberOfTaskSlots"]
        eventually(lambda: self.slots() == expected, START_S, "the cluster's slots")

    def stop(self) -> None:
        """End every process."""
        processes = [*self.task_managers, *self._others]
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def running(folder: Path, jar: Path, task_managers: int) -> Iterator[Cluster]:
    """A cluster that lives as long as the block."""
    cluster = Cluster(folder, jar)
    try:
        cluster.start(task_managers)
        yield cluster
    finally:
        cluster.stop()


def _environment() -> dict[str, str]:
    repository = str(Path(__file__).parent.parent.parent)
    # As in a pod: what workers import is what the image has.
    return os.environ | {"PYTHONPATH": repository, "CUDA_VISIBLE_DEVICES": ""}


_SETTINGS: dict[str, Any] = {
    "jobmanager.rpc.address": "127.0.0.1",
    "jobmanager.bind-host": "127.0.0.1",
    "jobmanager.memory.process.size": "1024m",
    "rest.address": "127.0.0.1",
    "rest.bind-address": "127.0.0.1",
    "taskmanager.host": "127.0.0.1",
    "taskmanager.bind-host": "127.0.0.1",
    "taskmanager.numberOfTaskSlots": 2,
    # What Flink's shell scripts work out of the size of a process.
    "taskmanager.cpu.cores": 1.0,
    "taskmanager.memory.task.heap.size": "256m",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.task.off-heap.size": "0m",
    "taskmanager.memory.framework.off-heap.size": "64m",
    "taskmanager.memory.managed.size": "128m",
    "taskmanager.memory.network.min": "384m",
    "taskmanager.memory.network.max": "384m",
    # TFDV's graphs have hundreds of exchanges, which would keep 512 buffers each.
    "taskmanager.network.sort-shuffle.min-buffers": 16,
    "taskmanager.memory.jvm-metaspace.size": "256m",
    "taskmanager.memory.jvm-overhead.min": "64m",
    "taskmanager.memory.jvm-overhead.max": "64m",
    "cluster.evenly-spread-out-slots": "true",
    "heartbeat.interval": 1000,
    "heartbeat.timeout": 15000,
    # Of the losses that one task manager is to the parts of a job, this strategy counts one.
    "restart-strategy.type": "exponential-delay",
    "restart-strategy.exponential-delay.initial-backoff": "2 s",
    "restart-strategy.exponential-delay.attempts-before-reset-backoff": 4,
}
