"""`mnist serve`, and `python -m serving`: the command line of the server."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from serving.models.batching_parameters import BatchingParameters, Join
from serving.models.config_file import (
    ConfigFileError,
    ModelConfig,
    folder_of,
    read_batching,
    read_models,
)
from serving.server.tls import Tls

if TYPE_CHECKING:
    from serving.server.run import Addresses, ServerConfig

BAD_INPUT = 2
FAILED = 1
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--model-dir",
    default="var/serving/mnist",
    show_default=True,
    metavar="FOLDER|URI",
    help="Folder of the model's version folders, or s3://… or gs://…; watched.",
)
@click.option("--model-name", help="The model's name. [default: the name of its folder]")
@click.option(
    "--model-config-file", type=FILE, help="Several models, in TF Serving's text format; for --model-dir."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--rest-port", default=8501, show_default=True, help="Port for REST; 0 takes a free one.")
@click.option(
    "--port", "grpc_port", default=8500, show_default=True, help="Port for gRPC; 0 takes a free one."
)
@click.option(
    "--batching",
    type=click.Choice([each.value for each in Join]),
    default=Join.MARKED.value,
    show_default=True,
    help="Of which models requests are joined: none; those that say that their rows do not depend on each "
    "other, as the Trainer's do; all.",
)
@click.option(
    "--batching-parameters-file", type=FILE, help="How to join those of all, in TF Serving's text format."
)
@click.option(
    "--op-threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads for one operation of a model; more suit few, big requests.",
)
@click.option("--max-request-mb", default=256, show_default=True, help="Largest request, unpacked.")
@click.option("--rest-timeout", default=30.0, show_default=True, help="Seconds for a REST answer.")
@click.option(
    "--arrival-timeout", default=10.0, show_default=True, help="Seconds for a REST request to arrive."
)
@click.option(
    "--keep-alive",
    default=620.0,
    show_default=True,
    help="Seconds that a connection stays without requests.",
)
@click.option(
    "--max-connections", default=4096, show_default=True, help="At each port; idle ones make room."
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that share the ports, with a copy of the models each.",
)
@click.option(
    "--grpc-channel-arguments",
    default="",
    help="Of gRPC's core, as TF Serving takes them: grpc.max_connection_age_ms=600000,…",
)
@click.option("--cors", is_flag=True, help="Web pages of any origin may ask by REST.")
@click.option(
    "--config-poll", default=0.0, help="Read a changed --model-config-file again, every so many seconds."
)
@click.option("--tls-cert", type=FILE, help="Certificate (PEM): both ports speak TLS.")
@click.option("--tls-key", type=FILE, help="Its key (PEM).")
@click.option(
    "--tls-client-ca", type=FILE, help="Clients must show a certificate signed by this one (PEM)."
)
@click.option(
    "--access-log",
    type=click.Path(path_type=Path),
    help="Append a JSON line for each request to this file.",
)
@click.option(
    "--log-requests",
    type=click.Path(path_type=Path),
    help="Write requests and answers to TFRecord files of PredictionLog in this folder.",
)
@click.option(
    "--log-sampling-rate",
    default=1.0,
    show_default=True,
    help="Share of the requests that is written there.",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path),
    help="Written when every model answers: JSON with host, rest_port and grpc_port.",
)
@click.option("--quiet", is_flag=True, help="Warnings only.")
def serve(
    model_dir: str,
    model_name: str | None,
    model_config_file: Path | None,
    host: str,
    rest_port: int,
    grpc_port: int,
    batching: str,
    batching_parameters_file: Path | None,
    op_threads: int,
    max_request_mb: int,
    rest_timeout: float,
    arrival_timeout: float,
    keep_alive: float,
    max_connections: int,
    workers: int,
    grpc_channel_arguments: str,
    cors: bool,
    config_poll: float,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    access_log: Path | None,
    log_requests: Path | None,
    log_sampling_rate: float,
    ready_file: Path | None,
    quiet: bool,
) -> None:
    """Serve models with TF Serving's REST and gRPC APIs, until Ctrl-C."""
    _quieten(quiet)
    if bool(tls_cert) != bool(tls_key) or (tls_client_ca and not tls_cert):
        _fail("--tls-cert and --tls-key go together, and --tls-client-ca needs both")
    # TensorFlow, which takes seconds, comes with these.
    from serving.models.loader import Loading
    from serving.server.rest import Limits
    from serving.server.run import ServerConfig, channel_arguments
    from serving.server.telemetry.request_log import RequestLogConfig
    from serving.server.workers import WorkerEndedError
    from serving.server.workers import serve as run

    try:
        models: list[ModelConfig]
        if model_config_file:
            models = read_models(model_config_file)
        else:
            folder = folder_of(model_dir)
            models = [ModelConfig(model_name or str(folder).rpartition("/")[2], folder)]
        parameters = BatchingParameters(join=Join(batching))
        if batching_parameters_file:
            parameters = read_batching(batching_parameters_file)
        config = ServerConfig(
            models=models,
            host=host,
            rest_port=rest_port,
            grpc_port=grpc_port,
            batching=parameters,
            loading=Loading(op_threads=op_threads),
            limits=Limits(max_request_mb * 2**20, arrival_timeout, rest_timeout),
            tls=Tls(tls_cert, tls_key, tls_client_ca) if tls_cert and tls_key else None,
            keep_alive_s=keep_alive,
            max_connections=max_connections,
            workers=workers,
            grpc_arguments=channel_arguments(grpc_channel_arguments),
            cors=cors,
            model_config_file=model_config_file,
            model_config_poll_s=config_poll,
            access_log=access_log,
            request_log=RequestLogConfig(log_requests, log_sampling_rate) if log_requests else None,
        )
        run(config, lambda at: _say_listening(config, at), lambda at: _say_ready(config, at, ready_file))
    except ConfigFileError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'system'}: {error.strerror or error}")
    except WorkerEndedError as error:
        _fail(str(error), FAILED)


def _quieten(quiet: bool) -> None:
    """Our own log on the terminal."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("serving").setLevel(logging.WARNING if quiet else logging.INFO)


def _say_listening(config: ServerConfig, at: Addresses) -> None:
    scheme = "https" if config.tls else "http"
    click.echo(f"REST {scheme}://{at.host}:{at.rest_port}   gRPC {at.host}:{at.grpc_port}")


def _say_ready(config: ServerConfig, at: Addresses, ready_file: Path | None) -> None:
    if ready_file is not None:
        content = {"host": at.host, "rest_port": at.rest_port, "grpc_port": at.grpc_port}
        temporary = ready_file.with_name(f"{ready_file.name}.{os.getpid()}")
        temporary.write_text(json.dumps(content), "utf-8")
        temporary.replace(ready_file)
    click.echo(f"serving {', '.join(model.name for model in config.models)}; Ctrl-C ends it")


def _fail(message: str, code: int = BAD_INPUT) -> NoReturn:
    click.echo(f"{click.get_current_context().find_root().info_name}: {message}", err=True)
    sys.exit(code)
