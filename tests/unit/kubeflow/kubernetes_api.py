"""As much of Kubernetes as worker pods need: an HTTP server that starts a Job's pods as processes here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Json = Any
NAMESPACE = "team"
_JOBS, _CORE = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs", f"/api/v1/namespaces/{NAMESPACE}/pods"


@dataclass
class Kubernetes(AbstractContextManager["Kubernetes"]):
    """One namespace.

    Attributes:
        folder: for what belongs to it.
        pod: who asks.
        command: what the pods of a Job run instead of its command.
        environment: what the machine adds to theirs.
        refused: what it says to who wants a Job.
        job: the one that was made, as it was sent.
        deleted: whether it was deleted.
        asked: verb and resource of each request, as roles name them.
    """

    folder: Path
    pod: Json
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    refused: str = ""
    job: Json = None
    deleted: bool = False
    asked: set[tuple[str, str]] = field(default_factory=set)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Kubernetes:
        """Serve."""
        server = type("Server", (ThreadingHTTPServer,), {"daemon_threads": True, "kubernetes": self})
        self._server = server(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "current-context": "here",
                    "contexts": [{"name": "here", "context": {"cluster": "it", "namespace": NAMESPACE}}],
                    "clusters": [
                        {
                            "name": "it",
                            "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"},
                        }
                    ],
                }
            )
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays."""
        self._server.shutdown()
        self._server.server_close()
        self.end()

    @property
    def kubeconfig(self) -> Path:
        """What clients read."""
        return self.folder / "kubeconfig"

    def log(self, index: int) -> Path:
        """What a pod has said."""
        return self.folder / f"worker-{index}.log"

    def start(self, job: Json) -> None:
        self.job = job
        (container,) = job["spec"]["template"]["spec"]["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        for index in range(job["spec"]["completions"]):
            home = self.folder / f"worker-{index}"
            home.mkdir()
            with self.log(index).open("wb") as log:
                self.processes.append(
                    subprocess.Popen(
                        self.command or [sys.executable, *container["command"][1:]],
                        cwd=home,
                        env=os.environ
                        | environment
                        | self.environment
                        | {"JOB_COMPLETION_INDEX": str(index)},
                        stdout=log,
                        stderr=subprocess.STDOUT,
                    )
                )

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def pods(self) -> list[Json]:
        return [self._pod(index, process) for index, process in enumerate(self.processes)]

    def status(self) -> Json:
        codes = [process.poll() for process in self.processes]
        return {"succeeded": codes.count(0), "failed": sum(1 for code in codes if code)}

    def _pod(self, index: int, process: subprocess.Popen[bytes]) -> Json:
        code = process.poll()
        phase = "Running" if code is None else "Failed" if code else "Succeeded"
        end = {"exitCode": code, "reason": "Error", "finishedAt": "2026-11-26T06:00:00Z"}
        return {
            "metadata": {
                "name": f"{self.job['metadata']['name']}-{index}-x",
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            },
            "status": {
                "phase": phase,
                "containerStatuses": [{"state": {"running": {}} if code is None else {"terminated": end}}],
            },
        }


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        here: Kubernetes = self.server.kubernetes  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        resource = re.sub(f"/apis?/.*{NAMESPACE}/([a-z]+)(?:/[^/]+)?", r"\1", url.path)
        here.asked.add(("list" if url.path == _CORE else "get", resource))
        name = here.job["metadata"]["name"] if here.job else ""
        if url.path == f"{_CORE}/{here.pod['metadata']['name']}":
            self._answer(here.pod)
        elif url.path == f"{_JOBS}/{name}" and not here.deleted:
            self._answer(here.job | {"status": here.status()})
        elif url.path == _CORE:
            assert parse_qs(url.query)["labelSelector"] == [f"batch.kubernetes.io/job-name={name}"]
            self._answer({"items": here.pods()})
        elif url.path.startswith(f"{_CORE}/{name}-") and url.path.endswith("-x/log"):
            index = int(url.path.removesuffix("-x/log").rpartition("-")[2])
            self._answer(here.log(index).read_text())
        else:
            self._answer({"message": f"{self.path} not found"}, 404)

    def do_POST(self) -> None:
        here: Kubernetes = self.server.kubernetes  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == _JOBS
        here.asked.add(("create", "jobs"))
        if here.refused:
            self._answer({"message": here.refused}, 403)
            return
        here.start(body)
        self._answer(body, 201)

    def do_DELETE(self) -> None:
        here: Kubernetes = self.server.kubernetes  # type: ignore[attr-defined]
        assert self.path.startswith(f"{_JOBS}/{here.job['metadata']['name']}")
        assert "propagationPolicy=Background" in self.path
        here.asked.add(("delete", "jobs"))
        here.deleted = True
        here.end()
        self._answer({})

    def _answer(self, body: Json, code: int = 200) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass
