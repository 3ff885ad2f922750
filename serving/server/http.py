"""uvicorn as this server needs it: no signals of its own, and connections that watch their clients."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from serving.server.connection import Pool, protocol
from serving.server.tls import Tls


@dataclass(frozen=True)
class HttpConfig:
    """What the REST port does with connections."""

    tls: Tls | None = None
    max_connections: int = (
        4096  # beyond it idle ones are closed, and without those new ones are answered 503
    )
    keep_alive_s: float = 620.0  # without a request; above the 60 s of nginx and AWS, and Google's 600
    arrival_timeout_s: float = 10.0  # for a head to arrive, and for a body to get on
    max_body_bytes: int = 256 * 2**20
    drain_s: float = 30.0  # how long a shutdown waits for requests in flight


class HttpServer(uvicorn.Server):
    """uvicorn, which leaves the signals to its caller."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; a TLS handshake that does not go on is given up like a head that does not."""
        config = self.config
        kind: Any = config.http_protocol_class
        self.servers = [
            await asyncio.get_running_loop().create_server(
                lambda: kind(config=config, server_state=self.server_state, app_state={}),
                sock=each,
                ssl=config.ssl,
                ssl_handshake_timeout=kind.arrival_timeout_s if config.ssl else None,
                backlog=config.backlog,
            )
            for each in sockets or []
        ]
        self.started = True


def create(app: ASGIApp, config: HttpConfig) -> HttpServer:
    """A server for an application; it is given its socket when it is run."""
    options: dict[str, Any] = {}
    if config.tls is not None:
        options = {"ssl_certfile": str(config.tls.certificate), "ssl_keyfile": str(config.tls.key)}
        if config.tls.client_ca is not None:
            options |= {"ssl_ca_certs": str(config.tls.client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return HttpServer(
        uvicorn.Config(
            app,
            http=protocol(Pool(config.max_connections), config.arrival_timeout_s, config.max_body_bytes),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=config.keep_alive_s,  # type: ignore[arg-type]
            timeout_graceful_shutdown=int(config.drain_s),
            **options,
        )
    )
