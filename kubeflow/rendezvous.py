"""How the pods of one training find each other: the first serves what the others need.

Kubeflow's launcher downloads a step's inputs into the step's own pod, and no other pod has what it takes
to open the object store. So the others ask that pod, and get the addresses of all and a copy of the files.
"""

from __future__ import annotations

import hmac
import http.client
import logging
import secrets
import socket
import tarfile
import threading
from collections.abc import Mapping
from contextlib import closing
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_ADDRESSES = "X-Addresses"
_LOG = logging.getLogger(__name__)


class RendezvousError(Exception):
    """The first pod did not answer."""


class Rendezvous(ThreadingHTTPServer):
    """The first pod's side.

    Attributes:
        url: what the others are told; it holds a secret.
        complete: set when all have come.
    """

    daemon_threads = True

    def __init__(self, host: str, others: int, files: Mapping[str, str]) -> None:
        """Serve, in a thread.

        Args:
            host: this pod's IP address.
            others: pods that shall come.
            files: files and folders here, by their names below the root of the others, in this order.
        """
        self.address_family = _family(host)
        super().__init__((host, 0), _Handler)
        self.files, self.complete, self._others = files, threading.Event(), others
        self._joined = {0: free_address(host)}
        self.path = f"/{secrets.token_urlsafe(32)}/"
        self.url = f"http://{_address(host, self.server_port)}{self.path}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def server_close(self) -> None:
        """End the thread, too."""
        self.shutdown()
        super().server_close()

    @property
    def addresses(self) -> list[str]:
        """host:port of each worker, this pod's first."""
        return [self._joined[index] for index in sorted(self._joined)]

    def join(self, index: int, address: str) -> None:
        """Note where a pod is, and wait for the others."""
        self._joined[index] = address
        _LOG.info("worker %d is at %s", index, address)
        if len(self._joined) > self._others:
            self.complete.set()
        self.complete.wait()


def join(url: str, index: int, root: str) -> list[str]:
    """Another pod's side: say where this one is, wait for the others, take the files.

    Args:
        url: of the Rendezvous.
        index: of this worker, from 1.
        root: folder that the files go into.

    Returns:
        The addresses of all workers.

    Raises:
        RendezvousError: where the first pod cannot be reached, or has gone; of the files, some may be here.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    try:
        with closing(connection):
            connection.connect()
            own = free_address(connection.sock.getsockname()[0])
            connection.request("GET", f"{parts.path}{index}/{own}")
            response = connection.getresponse()
            if response.status != HTTPStatus.OK:
                raise RendezvousError(f"the first pod answers with {response.status} {response.reason}")
            with tarfile.open(fileobj=response, mode="r|") as tar:
                if hasattr(tarfile, "data_filter"):  # Debian 12's Python 3.11.2 has none
                    tar.extraction_filter = tarfile.data_filter
                tar.extractall(root)
            return response.headers[_ADDRESSES].split()
    except (OSError, http.client.HTTPException, tarfile.TarError) as error:
        raise RendezvousError(f"the first pod cannot be reached, or has gone: {error}") from error


def free_address(host: str) -> str:
    """host:port that nothing listens at."""
    with socket.create_server((host, 0), family=_family(host)) as server:
        return _address(host, server.getsockname()[1])


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _Handler(BaseHTTPRequestHandler):
    server: Rendezvous

    def do_GET(self) -> None:
        """<path>INDEX/ADDRESS: answered when all have asked."""
        known, asked = self.server.path, self.path
        if not hmac.compare_digest(asked[: len(known)].encode(), known.encode()):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        index, _, address = asked[len(known) :].partition("/")
        self.server.join(int(index), address)
        self.send_response(HTTPStatus.OK)
        self.send_header(_ADDRESSES, " ".join(self.server.addresses))
        self.end_headers()
        with tarfile.open(fileobj=self.wfile, mode="w|", bufsize=1 << 20) as tar:
            for name, path in self.server.files.items():
                tar.add(path, name)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: the paths have the secret in them."""
