"""The server: both ports on one event loop, from the first look at the model folders to the last answer."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from serving.models.batching import Batcher, BatchingParameters
from serving.models.config_file import ModelConfig
from serving.models.loader import Loader
from serving.models.warmup import warm_up
from serving.protocol.protos import model_service_pb2_grpc, prediction_service_pb2_grpc
from serving.server import http
from serving.server.grpc import ModelServicer, PredictionServicer
from serving.server.rest import Limits, RestApp
from serving.server.service import Service
from serving.server.telemetry.access_log import AccessLog, Recorder
from serving.server.telemetry.metrics import Metrics
from serving.server.telemetry.request_log import RequestLog, RequestLogConfig
from serving.server.tls import Tls

log = logging.getLogger(__name__)

HEALTH_SERVICES = ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
READY_CHECK_S = 0.05


@dataclass(frozen=True)
class ServerConfig:
    """What a server is told."""

    models: Sequence[ModelConfig]
    host: str = "127.0.0.1"
    rest_port: int = 8501  # 0 takes a free one
    grpc_port: int = 8500  # 0 takes a free one
    batching: BatchingParameters = field(default_factory=BatchingParameters)
    op_threads: int = 1  # of each model, see Servable
    limits: Limits = field(default_factory=Limits)
    tls: Tls | None = None
    access_log: Path | None = None
    request_log: RequestLogConfig | None = None
    grpc_threads: int = 256  # that work on requests; made when they are needed
    max_concurrent_requests: int = 1024  # at each port; more are refused
    max_connections: int = 4096  # at the REST port
    drain_s: float = 30.0  # after SIGTERM, for requests in flight


@dataclass(frozen=True)
class Addresses:
    """Where a server listens."""

    host: str
    rest_port: int
    grpc_port: int


OnAddresses = Callable[[Addresses], None]


def serve(config: ServerConfig, on_listening: OnAddresses, on_ready: OnAddresses) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is in flight, and return.

    Args:
        config: what to serve and where.
        on_listening: called when both ports are open; models may still be loading.
        on_ready: called when every model answers.

    Raises:
        OSError: when a port cannot be opened, or a file for TLS or a log cannot be used.
    """
    if config.tls is not None:
        config.tls.check()
    with ExitStack() as stack:
        metrics = Metrics()
        access_log = AccessLog(config.access_log) if config.access_log else None
        if access_log is not None:
            stack.callback(access_log.close)
        request_log = RequestLog(config.request_log, metrics.log_count) if config.request_log else None
        if request_log is not None:
            stack.callback(request_log.close)
        loader = Loader(config.models, warm_up, op_threads=config.op_threads)
        stack.callback(loader.close)
        batcher = Batcher(config.batching, metrics.batch)
        recorder = Recorder(metrics, access_log)
        asyncio.run(
            _serve(config, Service(loader, batcher, request_log), recorder, loader, on_listening, on_ready)
        )


async def _serve(
    config: ServerConfig,
    service: Service,
    recorder: Recorder,
    loader: Loader,
    on_listening: OnAddresses,
    on_ready: OnAddresses,
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    healths = health.HealthServicer()
    _set_health(healths, health_pb2.HealthCheckResponse.NOT_SERVING)
    rpc = _grpc_server(config, service, recorder, healths)
    app = RestApp(service, recorder, config.limits)
    web = http.create(
        app, config.tls, config.max_connections, config.limits.arrival_timeout_s, config.drain_s
    )
    with _listen(config.host, config.rest_port) as listener:
        grpc_port = _open_grpc(rpc, config)
        addresses = Addresses(config.host, listener.getsockname()[1], grpc_port)
        rpc.start()
        serving = asyncio.create_task(web.serve(sockets=[listener]))
        loader.start()
        on_listening(addresses)
        becoming_ready = asyncio.create_task(_become_ready(loader, healths, lambda: on_ready(addresses)))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping: requests in flight have %.0f s", config.drain_s)
        becoming_ready.cancel()
        stopping.cancel()
        healths.enter_graceful_shutdown()
        web.should_exit = True
        stopped = rpc.stop(config.drain_s)
        await asyncio.gather(asyncio.to_thread(stopped.wait), serving)


async def _become_ready(
    loader: Loader, healths: health.HealthServicer, on_ready: Callable[[], None]
) -> None:
    while not loader.ready:
        await asyncio.sleep(READY_CHECK_S)
    _set_health(healths, health_pb2.HealthCheckResponse.SERVING)
    on_ready()


def _set_health(healths: health.HealthServicer, state: int) -> None:
    for name in HEALTH_SERVICES:
        healths.set(name, state)


def _grpc_server(
    config: ServerConfig, service: Service, recorder: Recorder, healths: health.HealthServicer
) -> grpc.Server:
    server = grpc.server(
        ThreadPoolExecutor(config.grpc_threads, "grpc"),
        options=[
            ("grpc.max_receive_message_length", config.limits.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=config.max_concurrent_requests,
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionServicer(service, recorder), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(service, recorder), server)
    health_pb2_grpc.add_HealthServicer_to_server(healths, server)
    return server


def _open_grpc(server: grpc.Server, config: ServerConfig) -> int:
    """Open the port; returns it."""
    address = f"{_bracketed(config.host)}:{config.grpc_port}"
    try:
        if config.tls is None:
            return server.add_insecure_port(address)
        client_ca = config.tls.client_ca
        credentials = grpc.ssl_server_credentials(
            [(config.tls.key.read_bytes(), config.tls.certificate.read_bytes())],
            root_certificates=client_ca.read_bytes() if client_ca else None,
            require_client_auth=client_ca is not None,
        )
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise OSError(None, f"cannot listen: {error}", address) from None


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Naming the protocol matters: without it asyncio leaves Nagle's delay on, 40 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"{_bracketed(host)}:{port}") from None
    return listener


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
