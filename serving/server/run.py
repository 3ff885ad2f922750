"""The server: both ports on one event loop, from the first look at the model folders to the last answer."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from serving.models.batching import Batcher
from serving.models.batching_parameters import BatchingParameters
from serving.models.config_file import (
    BATCHING_FILE,
    ConfigFileError,
    ModelConfig,
    read_batching,
    read_models,
)
from serving.models.folders import hint, is_version
from serving.models.loader import Loader, Loading
from serving.models.servable import Servable
from serving.models.warmup import warm_up
from serving.protocol.errors import ServingError, invalid
from serving.protocol.protos import model_service_pb2_grpc, prediction_service_pb2_grpc
from serving.server import descriptions, descriptors, http, profiler
from serving.server.grpc import ModelServicer, PredictionServicer
from serving.server.http import HttpConfig
from serving.server.profiler import Profiler
from serving.server.rest import METRICS_PATH, Limits, RestApp
from serving.server.service import Service
from serving.server.telemetry.access_log import AccessLog, Recorder
from serving.server.telemetry.metrics import Metrics
from serving.server.telemetry.request_log import RequestLog, RequestLogConfig
from serving.server.tls import Tls

log = logging.getLogger(__name__)

HEALTH_SERVICES = ("", descriptions.PREDICTION_SERVICE, descriptions.MODEL_SERVICE)
READY_CHECK_S = 0.05
RELOAD_S = 60.0  # for the models of a changed config file to answer
GRPC_PING_S = 60
GRPC_LEAST_PING_S = 10


@dataclass(frozen=True)
class ServerConfig:
    """What a server is told."""

    models: Sequence[ModelConfig]
    host: str = "127.0.0.1"
    rest_port: int | None = 8501  # 0 takes a free one, None opens none
    grpc_port: int | None = 8500  # as well
    grpc_socket: str = ""  # path of a UNIX socket for gRPC
    batching: BatchingParameters = field(default_factory=BatchingParameters)
    batching_per_model: bool = False  # by the models' own batching_params.pbtxt
    loading: Loading = field(default_factory=Loading)
    limits: Limits = field(default_factory=Limits)
    tls: Tls | None = None
    rest_tls: bool = True  # where there is `tls`, for REST too
    warm_up_times: int = 1  # that each warm-up request is answered; 0: no warm-up
    opens_when_ready: bool = False  # as TF Serving: nothing listens before the models answer
    metrics_path: str | None = METRICS_PATH  # of the REST port; None: none
    packed_answers: bool = False  # of gRPC's Predict, as tensor_content
    profiler: bool = False  # clients may have traces written to where they say
    keep_alive_s: float = 620.0  # without a request; load balancers keep theirs for 60 s, Google's for 600
    grpc_arguments: Mapping[str, int | str] = field(default_factory=dict)  # of gRPC's core, over ours
    cors: bool = False  # REST answers may be read by pages of any origin
    model_config_file: Path | None = None  # where `models` come from; read again every
    model_config_poll_s: float = 0.0  # seconds; 0 reads it once
    access_log: Path | None = None
    request_log: RequestLogConfig | None = None
    grpc_threads: int = 256  # that work on requests; made when they are needed
    max_concurrent_requests: int = 1024  # at each port; more are refused
    max_connections: int = 4096  # at each port; idle ones make room
    drain_s: float = 30.0  # after SIGTERM, for requests in flight
    workers: int = 1  # processes that share the ports; see serving.server.workers


@dataclass(frozen=True)
class Addresses:
    """Where a server listens."""

    host: str
    rest_port: int | None
    grpc_port: int | None


OnAddresses = Callable[[Addresses], None]


def channel_arguments(text: str) -> dict[str, int | str]:
    """gRPC's channel arguments as TF Serving's command line takes them: `name=value,name=value`.

    Raises:
        ConfigFileError: for what has no name or no value.
    """
    arguments: dict[str, int | str] = {}
    for each in filter(None, text.split(",")):
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise ConfigFileError(f"{each}: a channel argument is NAME=VALUE")
        arguments[name] = int(value) if value.lstrip("-").isdigit() else value
    return arguments


def serve(config: ServerConfig, on_listening: OnAddresses, on_ready: OnAddresses) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is in flight, and return.

    Args:
        config: what to serve and where.
        on_listening: called when both ports are open; models may still be loading.
        on_ready: called when every model answers or cannot be loaded, and one answers.

    Raises:
        ConfigFileError: when a model's folder is itself a version.
        OSError: when a port cannot be opened, or a file for TLS or a log cannot be used.
    """
    check(config)
    run(config, Loader(config.models, prepare(config), config.loading), Metrics(), on_listening, on_ready)


def check(config: ServerConfig) -> None:
    """Find what cannot be served.

    Raises:
        ConfigFileError: when a model's folder is itself a version.
        OSError: when a file for TLS cannot be used.
    """
    if config.tls is not None:
        config.tls.check()
    for model in config.models:
        path = model.base_path
        if isinstance(path, Path) and is_version(path):
            raise ConfigFileError(f"{model.name}: no versions in {path}{hint(path)}")


def run(
    config: ServerConfig,
    loader: Loader,
    metrics: Metrics,
    on_listening: OnAddresses,
    on_ready: OnAddresses,
    metrics_page: Callable[[], bytes] | None = None,
) -> None:
    """Serve what a loader has until SIGTERM or SIGINT, and close it; the rest is as with `serve`."""
    descriptors.raise_limit()
    with ExitStack() as stack:
        stack.callback(loader.close)
        access_log = AccessLog(config.access_log) if config.access_log else None
        if access_log is not None:
            stack.callback(access_log.close)
        request_log = RequestLog(config.request_log, metrics.log_count) if config.request_log else None
        if request_log is not None:
            stack.callback(request_log.close)
        batcher = Batcher(config.batching, metrics.batch, config.batching_per_model)
        service = Service(loader, batcher, request_log)
        recorder = Recorder(metrics, access_log, loader.knows)
        app = RestApp(
            service,
            recorder,
            config.limits,
            cors=config.cors,
            metrics_path=config.metrics_path,
            metrics_page=metrics_page,
        )
        uvloop.run(_serve(config, service, app, recorder, loader, on_listening, on_ready))


def prepare(config: ServerConfig) -> Callable[[Servable], None]:
    """What is done with a loaded version before it takes requests."""

    def prepare(servable: Servable) -> None:
        own = servable.folder / BATCHING_FILE
        if config.batching_per_model and own.exists():
            try:
                servable.batching = read_batching(own)
            except ConfigFileError as error:
                raise invalid(str(error)) from None
        if config.warm_up_times:
            warm_up(servable, config.warm_up_times)

    return prepare


async def _serve(
    config: ServerConfig,
    service: Service,
    app: RestApp,
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
    web = http.create(
        app,
        HttpConfig(
            tls=config.tls if config.rest_tls else None,
            max_connections=descriptors.connections_within(config.max_connections),
            keep_alive_s=config.keep_alive_s,
            arrival_timeout_s=config.limits.arrival_timeout_s,
            max_body_bytes=config.limits.max_body_bytes,
            drain_s=config.drain_s,
        ),
    )
    if config.opens_when_ready:
        loader.start()
        while not (loader.ready or stop.is_set()):
            await asyncio.sleep(READY_CHECK_S)
        if stop.is_set():
            return
    with ExitStack() as stack:
        listeners = []
        if config.rest_port is not None:
            listeners.append(stack.enter_context(bind(config.host, config.rest_port, config.workers > 1)))
        grpc_port = _open_grpc(rpc, config)
        rest_port = listeners[0].getsockname()[1] if listeners else None
        addresses = Addresses(config.host, rest_port, grpc_port)
        rpc.start()
        serving = asyncio.create_task(web.serve(sockets=listeners) if listeners else stop.wait())
        if not config.opens_when_ready:
            loader.start()
        on_listening(addresses)
        becoming_ready = asyncio.create_task(_become_ready(loader, healths, lambda: on_ready(addresses)))
        polling = None
        if config.model_config_file is not None and config.model_config_poll_s > 0:
            polling = asyncio.create_task(
                poll_config(config.model_config_file, config.model_config_poll_s, loader)
            )
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping: requests in flight have %.0f s", config.drain_s)
        becoming_ready.cancel()
        if polling is not None:
            polling.cancel()
        stopping.cancel()
        healths.enter_graceful_shutdown()
        web.should_exit = True
        stopped = rpc.stop(config.drain_s)
        await asyncio.gather(asyncio.to_thread(stopped.wait), serving)


async def poll_config(path: Path, every_s: float, loader: Loader) -> None:
    """Serve what a model config file says, whenever it says something else and can be applied."""
    applied, told = path.read_bytes(), ""
    while True:
        await asyncio.sleep(every_s)
        try:
            content = path.read_bytes()
            if content == applied:
                continue
            await asyncio.to_thread(loader.configure, read_models(path), RELOAD_S)
            applied, told = content, ""
            log.info("%s has changed, and is applied", path)
        except (OSError, ConfigFileError, ServingError) as error:
            if str(error) != told:  # it is tried again, but said once
                told = str(error)
                log.error("the changed model config file cannot be applied: %s", error)


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
        options=list(_grpc_arguments(config).items()),
        maximum_concurrent_rpcs=config.max_concurrent_requests,
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionServicer(service, recorder, packed=config.packed_answers), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(service, recorder), server)
    health_pb2_grpc.add_HealthServicer_to_server(healths, server)
    names = list(descriptions.NAMES)
    if config.profiler:
        Profiler().add_to(server)
        names.append(profiler.NAME)
    reflection.enable_server_reflection(names, server, descriptions.Descriptions())
    return server


def _grpc_arguments(config: ServerConfig) -> dict[str, int | str]:
    """Of gRPC's core; times in milliseconds."""
    return {
        "grpc.max_receive_message_length": config.limits.max_body_bytes,
        "grpc.max_send_message_length": -1,
        "grpc.so_reuseport": int(config.workers > 1),
        "grpc.max_allowed_incoming_connections": descriptors.connections_within(config.max_connections),
        "grpc.max_connection_idle_ms": int(config.keep_alive_s * 1e3),
        # Ask clients that say nothing whether they are there, and let them ask, where the default is to
        # end a connection that asks more often than every five minutes.
        "grpc.keepalive_time_ms": GRPC_PING_S * 1000,
        "grpc.http2.min_ping_interval_without_data_ms": GRPC_LEAST_PING_S * 1000,
        "grpc.keepalive_permit_without_calls": 1,
        **config.grpc_arguments,
    }


def _open_grpc(server: grpc.Server, config: ServerConfig) -> int | None:
    """Open the port, and the socket; returns the port."""
    port = None
    if config.grpc_socket:
        _open_grpc_at(server, config, f"unix:{config.grpc_socket}")
    if config.grpc_port is not None:
        port = _open_grpc_at(server, config, f"{_bracketed(config.host)}:{config.grpc_port}")
    return port


def _open_grpc_at(server: grpc.Server, config: ServerConfig, address: str) -> int:
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


def bind(host: str, port: int, shared: bool = False) -> socket.socket:
    """A socket for connections, or to keep a port for processes that share it.

    Raises:
        OSError: with the address, when it is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Naming the protocol matters: without it asyncio leaves Nagle's delay on, 40 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"{_bracketed(host)}:{port}") from None
    return listener


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
