"""Beam's job servers, Java programs between a node and an engine: one for all nodes, stopped in the end.

Beam by itself starts another one for each node and keeps them all until Python ends, when the folder that
they clean up is gone; and it takes the handler of Ctrl-C for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    SparkRunnerOptions,
)
from apache_beam.runners.portability.flink_runner import FlinkJarJobServer, FlinkRunner
from apache_beam.runners.portability.job_server import JavaJarJobServer
from apache_beam.runners.portability.spark_runner import SparkJarJobServer, SparkRunner


class _Servers:
    """The job servers that run, by what they were started with."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[str, ...], JavaJarJobServer] = {}

    def flink(self, options: PipelineOptions) -> JavaJarJobServer:
        flink = options.view_as(FlinkRunnerOptions)
        flink.flink_master = FlinkRunner.add_http_scheme(flink.flink_master)
        key = flink.flink_master, str(flink.flink_job_server_jar), flink.flink_version
        return self._shared(FlinkJarJobServer, key, options)

    def spark(self, options: PipelineOptions) -> JavaJarJobServer:
        spark = options.view_as(SparkRunnerOptions)
        key = spark.spark_master_url, str(spark.spark_job_server_jar), str(spark.spark_version)
        return self._shared(SparkJarJobServer, key, options)

    def _shared(
        self, kind: type[JavaJarJobServer], key: tuple[str, ...], options: PipelineOptions
    ) -> JavaJarJobServer:
        key = kind.__name__, *key
        with self._lock:
            if key not in self._running:
                self._running[key] = kind(options)
            return self._running[key]

    def stop(self) -> None:
        for server in self._running.values():
            server.stop()


@contextmanager
def shared() -> Iterator[None]:
    """Nodes that run meanwhile share their job servers, which stop at the end."""
    servers = _Servers()
    before = FlinkRunner.default_job_server, SparkRunner.default_job_server
    FlinkRunner.default_job_server = lambda _runner, options: servers.flink(options)
    SparkRunner.default_job_server = lambda _runner, options: servers.spark(options)
    try:
        yield
    finally:
        FlinkRunner.default_job_server, SparkRunner.default_job_server = before
        servers.stop()
