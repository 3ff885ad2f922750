"""Several processes at the same ports, for machines with more cores than one Python process can use.

Each worker is a whole server whose sockets share their ports with the others' (SO_REUSEPORT: the kernel
gives each new connection to one of them). The process that starts them serves nothing: it looks at the
model folders for all of them (serving.models.replicas), adds up their metrics, and passes on a reload that
one of them was asked for. A worker that ends by itself takes the server down, for whoever runs it to start
it again.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from serving.models.config_file import ConfigFileError
from serving.models.loader import Loader
from serving.models.replicas import Leader, Replica
from serving.server.peer import GoneError, Peer
from serving.server.run import (
    READY_CHECK_S,
    Addresses,
    OnAddresses,
    ServerConfig,
    bind,
    check,
    poll_config,
    prepare,
    run,
)
from serving.server.run import serve as serve_alone
from serving.server.telemetry.metrics import Metrics, page_of_all

log = logging.getLogger(__name__)

LONGER_S = 10.0  # than the requests in flight have, until a worker is killed
FAILED = 1


@dataclass
class _Worker:
    """A worker, as its parent sees it."""

    process: BaseProcess
    peer: Peer


class WorkerEndedError(RuntimeError):
    """A worker ended by itself."""

    def __init__(self, process: BaseProcess) -> None:
        """Say how."""
        code = process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"{process.name} {how}, and the server with it")


def serve(config: ServerConfig, on_listening: OnAddresses, on_ready: OnAddresses) -> None:
    """Serve until SIGTERM or SIGINT, in as many processes as the configuration says.

    Args:
        config: what to serve and where.
        on_listening: called when all processes listen; models may still be loading.
        on_ready: called when all processes answer.

    Raises:
        ConfigFileError: when a model's folder is itself a version.
        OSError: when a port cannot be opened, or a file for TLS cannot be used.
        WorkerEndedError: when a worker ended.
    """
    if config.workers == 1:
        serve_alone(config, on_listening, on_ready)
        return
    check(config)
    with ExitStack() as stack:
        ports = [
            None if port is None else _keep(config.host, port, stack)
            for port in (config.rest_port, config.grpc_port)
        ]
        config = replace(config, rest_port=ports[0], grpc_port=ports[1])
        _Parent(config, on_listening, on_ready).run()


def _keep(host: str, port: int, stack: ExitStack) -> int:
    """Take a port for workers to share: first as one that nobody shares, so that no other server's is."""
    with bind(host, port) as alone:
        port = alone.getsockname()[1]
    stack.enter_context(bind(host, port, shared=True))
    return port


class _Parent:
    """The process that starts the workers."""

    def __init__(self, config: ServerConfig, on_listening: OnAddresses, on_ready: OnAddresses) -> None:
        self._config = config
        self._on_listening = on_listening
        self._on_ready = on_ready
        self._at = Addresses(config.host, config.rest_port, config.grpc_port)
        self._workers: list[_Worker] = []
        self._listening: set[int] = set()
        self._ready: set[int] = set()
        self._leader = Leader(config.models, config.loading, self._everywhere)

    def run(self) -> None:
        """Until a signal, or until a worker ends."""
        with ExitStack() as stack:
            stack.callback(self._leader.close)
            stack.callback(self._stop)
            for number in range(self._config.workers):
                self._workers.append(self._start(number))
            ended = asyncio.run(self._watch())
            if ended is not None:
                raise ended

    def _start(self, number: int) -> _Worker:
        context = multiprocessing.get_context("spawn")  # TensorFlow has threads, which no fork survives
        ours, theirs = context.Pipe()
        level = logging.getLogger("serving").level
        # One of them may have the UNIX socket; and it is the parent that reads the config file again.
        socket_path = "" if number else self._config.grpc_socket
        config = replace(self._config, grpc_socket=socket_path, model_config_poll_s=0)
        name = f"worker {number + 1}"
        process = context.Process(target=_work, args=(config, theirs, name, level), name=name, daemon=True)
        # Ctrl-C is for this process: it ends the workers, whatever they are doing.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        process.start()
        signal.signal(signal.SIGINT, handler)
        theirs.close()
        offers: dict[str, Callable[..., Any]] = {
            "configure": self._leader.configure,
            "metrics": self._metrics,
            "listening": lambda: self._listening.add(number),
            "ready": lambda: self._ready.add(number),
        }
        return _Worker(process, Peer(ours, offers, lambda: None))

    async def _watch(self) -> WorkerEndedError | None:
        """Until a signal (None), or until a worker ends."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[WorkerEndedError | None] = loop.create_future()

        def end(result: WorkerEndedError | None) -> None:
            if not over.done():
                over.set_result(result)

        def worker_ended(process: BaseProcess) -> None:
            loop.remove_reader(process.sentinel)
            process.join()
            end(WorkerEndedError(process))

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end, None)
        for worker in self._workers:
            loop.add_reader(worker.process.sentinel, worker_ended, worker.process)
        self._leader.start()
        steps = [asyncio.create_task(self._tell())]
        file = self._config.model_config_file
        if file is not None and self._config.model_config_poll_s > 0:
            steps.append(
                asyncio.create_task(poll_config(file, self._config.model_config_poll_s, self._leader))
            )
        try:
            return await over
        finally:
            for step in steps:
                step.cancel()

    async def _tell(self) -> None:
        """Say when all listen, and when all are ready."""
        while len(self._listening) < len(self._workers):
            await asyncio.sleep(READY_CHECK_S)
        self._on_listening(self._at)
        while len(self._ready) < len(self._workers):
            await asyncio.sleep(READY_CHECK_S)
        self._on_ready(self._at)

    def _stop(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(self._config.drain_s + LONGER_S)
            if worker.process.is_alive():
                worker.process.kill()

    def _everywhere(self, name: str, *arguments: Any) -> None:
        self._ask(name, *arguments)

    def _metrics(self) -> bytes:
        return page_of_all(self._ask("families"))

    def _ask(self, name: str, *arguments: Any) -> list[Any]:
        """The answers of all workers; when one has ended, the server is about to end."""
        futures: Sequence[Future[Any]] = [worker.peer.call(name, *arguments) for worker in self._workers]
        answers, errors = [], []
        for future in futures:
            error = future.exception()
            if error is None:
                answers.append(future.result())
            elif not isinstance(error, GoneError):
                errors.append(error)
        if errors:
            raise errors[0]
        return answers


def _work(config: ServerConfig, connection: Connection, name: str, level: int) -> None:
    """A worker: the server, whose loader and metrics page are its parent's."""
    logging.basicConfig(format=f"%(asctime)s %(levelname)s {name}: %(message)s", level=logging.WARNING)
    logging.getLogger("serving").setLevel(level)
    metrics = Metrics()
    calls: dict[str, Callable[..., Any]] = {"families": metrics.families}
    replica = Replica(
        config.models,
        prepare(config),
        config.loading,
        lambda *arguments: peer.call("configure", *arguments).result(),
    )
    calls |= {"load": replica.load, "drop": replica.drop, "show": replica.show}
    # When the parent is gone nobody else will end this process.
    peer = Peer(connection, calls, lambda: os.kill(os.getpid(), signal.SIGTERM))
    loader: Loader = replica
    try:
        run(
            config,
            loader,
            metrics,
            lambda _: peer.call("listening").result(),
            lambda _: peer.call("ready").result(),
            lambda: bytes(peer.call("metrics").result()),
        )
    except (ConfigFileError, OSError) as error:
        file = getattr(error, "filename", None)
        log.error("%s", f"{file}: {getattr(error, 'strerror', error)}" if file else error)
        raise SystemExit(FAILED) from None
