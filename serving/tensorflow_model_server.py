"""`tensorflow_model_server`: TF Serving's command line, flag by flag, for this server.

A manifest, a compose file or a script written for TF Serving's image needs no change. Flags that are known
and have no effect here are taken with one warning, unknown ones are refused. `docs/serving.md` has the
table.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from serving.models.batching_parameters import BatchingParameters, Join
from serving.models.config_file import (
    ConfigFileError,
    ModelConfig,
    folder_of,
    read_batching,
    read_models,
    read_monitoring,
    read_ssl,
)
from serving.models.loader import Loading
from serving.models.runtime import tf
from serving.server.rest import METRICS_PATH, Limits
from serving.server.run import Addresses, ServerConfig, channel_arguments
from serving.server.tls import Tls
from serving.server.workers import WorkerEndedError, serve

PROGRAM = "tensorflow_model_server"
BAD_INPUT = 2
FAILED = 1
ALL_ADDRESSES = "0.0.0.0"

# Known to TF Serving, without effect here; by name, why.
WITHOUT_EFFECT = {
    "enable_grpc_healthcheck_service": "the health service is always there",
    "enable_signature_method_name_check": "method names are not checked",
    "flush_filesystem_caches": "files are not kept in memory",
    "mixed_precision": "models are run as they are",
    "num_tflite_interpreters_per_pool": "an interpreter runs a request as a whole",
    "num_unload_threads": "versions are unloaded as soon as nobody asks them",
    "per_process_gpu_memory_fraction": "memory of GPUs is taken as it is needed",
    "platform_config_file": "the platform is TensorFlow",
    "remove_unused_fields_from_bundle_metagraph": "nothing is kept of it",
    "skip_initialize_tpu": "there is no TPU",
    "tensorflow_inter_op_parallelism": "operations of a request run one after the other",
    "tensorflow_session_config_file": "sessions have their own settings",
    "thread_pool_factory_config_file": "threads have their own settings",
    "xla_cpu_compilation_enabled": "models are run as they are",
    "xla_gpu_compilation_enabled": "models are run as they are",
}

log = logging.getLogger(__name__)


class _Parser(argparse.ArgumentParser):
    """argparse, whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        _fail(message)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; exit code 2 and one line for what cannot be served."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    logging.getLogger("serving").setLevel(logging.INFO)
    flags = _parser().parse_args(arguments)
    if flags.version:
        api = metadata.version("tensorflow-serving-api")
        _say(f"TensorFlow ModelServer: in Python, of API {api}\nTensorFlow Library: {tf.__version__}")
        return
    if flags.use_alts_credentials:
        _fail("--use_alts_credentials is not supported: without it the port would be open to all")
    for name, reason in WITHOUT_EFFECT.items():
        if getattr(flags, name) is not None:
            log.warning("--%s has no effect: %s", name, reason)
    try:
        with ExitStack() as stack:
            serve(_config(flags, stack), _say_listening, _say_ready)
    except ConfigFileError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'system'}: {error.strerror or error}")
    except WorkerEndedError as error:
        _fail(str(error), FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(PROGRAM, description=__doc__, allow_abbrev=False)

    def add(name: str, kind: Any, default: Any, text: str) -> None:
        if kind is bool:
            parser.add_argument(f"--{name}", nargs="?", type=_bool, const=True, default=default, help=text)
        else:
            parser.add_argument(f"--{name}", type=kind, default=default, help=text)

    add("port", int, 8500, "port for gRPC; 0: none")
    add("grpc_socket_path", str, "", "a UNIX socket for gRPC")
    add("rest_api_port", int, 0, "port for REST; 0: none")
    add("rest_api_num_threads", int, 0, "threads that work on REST requests")
    add("rest_api_timeout_in_ms", int, 30_000, "for a REST answer")
    add("rest_api_enable_cors_support", bool, False, "CORS headers")
    add("enable_batching", bool, False, "join requests")
    add("batching_parameters_file", str, "", "how to join them")
    add("enable_per_model_batching_parameters", bool, False, "by a model's own batching_params.pbtxt")
    add("allow_version_labels_for_unavailable_models", bool, False, "labels of versions that are loading")
    add("model_config_file", str, "", "several models")
    add("model_config_file_poll_wait_seconds", int, 0, "between two looks at that file; 0: only one")
    add("model_name", str, "default", "name of the model")
    add("model_base_path", str, "", "its folder of version folders, or s3://… or gs://…")
    add("num_load_threads", int, 0, "models that are loaded at a time; 0: one a core")
    add("max_num_load_retries", int, 5, "of a version that cannot be loaded")
    add("load_retry_interval_micros", int, 60_000_000, "between them")
    add("file_system_poll_wait_seconds", int, 1, "between two looks for new versions; 0: only one")
    add("tensorflow_session_parallelism", int, 0, "threads for and in operations; 0: see docs/serving.md")
    add("tensorflow_intra_op_parallelism", int, 0, "threads for an operation")
    add("ssl_config_file", str, "", "key and certificate for gRPC")
    add("saved_model_tags", str, "serve", "of the meta graph")
    add("prefer_tflite_model", bool, False, "serve a version's model.tflite where there is one")
    add("num_tflite_pools", int, 1, "interpreters of a TF Lite model: requests that run at a time")
    add("grpc_channel_arguments", str, "", "name=value, name=value …")
    add("grpc_max_threads", int, 0, "threads that work on gRPC requests")
    add("workers", int, 1, "processes that share the ports; not a flag of TF Serving")
    add("enable_model_warmup", bool, True, "replay a model's warm-up requests")
    add("num_request_iterations_for_warmup", int, 0, "how often each")
    add("monitoring_config_file", str, "", "whether and where Prometheus finds the metrics")
    add("enable_serialization_as_tensor_content", bool, False, "answers as tensor_content")
    add(
        "enable_profiler", bool, True, "traces for TensorBoard, which the server writes where a client says"
    )
    add("use_alts_credentials", bool, False, "refused")
    add("version", bool, False, "print the version")
    for name, reason in WITHOUT_EFFECT.items():
        add(name, str, None, f"no effect: {reason}")
        parser._actions[-1].nargs, parser._actions[-1].const = "?", "true"
    return parser


def _bool(text: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise argparse.ArgumentTypeError(f"true or false, not {text!r}")


def _config(flags: argparse.Namespace, stack: ExitStack) -> ServerConfig:
    parameters = BatchingParameters(Join.ALL if flags.enable_batching else Join.MARKED)
    if flags.enable_batching and flags.batching_parameters_file:
        parameters = read_batching(Path(flags.batching_parameters_file))
    metrics_path: str | None = METRICS_PATH
    if flags.monitoring_config_file:
        path = read_monitoring(Path(flags.monitoring_config_file))
        metrics_path = None if path is None else path or METRICS_PATH
    limits = Limits(
        max_body_bytes=2**31 - 1,
        answer_timeout_s=flags.rest_api_timeout_in_ms / 1e3,
        threads=flags.rest_api_num_threads or Limits.threads,
    )
    intra = flags.tensorflow_intra_op_parallelism or flags.tensorflow_session_parallelism or 1
    return ServerConfig(
        models=_models(flags),
        model_config_file=Path(flags.model_config_file) if flags.model_config_file else None,
        model_config_poll_s=flags.model_config_file_poll_wait_seconds,
        host=ALL_ADDRESSES,
        rest_port=flags.rest_api_port or None,
        grpc_port=flags.port or None,
        grpc_socket=flags.grpc_socket_path,
        grpc_arguments=channel_arguments(flags.grpc_channel_arguments),
        workers=max(flags.workers, 1),
        grpc_threads=flags.grpc_max_threads or ServerConfig.grpc_threads,
        batching=parameters,
        batching_per_model=flags.enable_batching and flags.enable_per_model_batching_parameters,
        loading=Loading(
            poll_s=flags.file_system_poll_wait_seconds,
            threads=flags.num_load_threads or Loading().threads,
            max_retries=flags.max_num_load_retries,
            retry_s=flags.load_retry_interval_micros / 1e6,
            op_threads=intra,
            tags=tuple(flags.saved_model_tags.split(",")),
            prefer_tflite=flags.prefer_tflite_model,
            tflite_interpreters=max(flags.num_tflite_pools, 1),
            allow_early_labels=flags.allow_version_labels_for_unavailable_models,
        ),
        warm_up_times=max(flags.num_request_iterations_for_warmup, 1) if flags.enable_model_warmup else 0,
        limits=limits,
        cors=flags.rest_api_enable_cors_support,
        metrics_path=metrics_path,
        profiler=flags.enable_profiler,
        packed_answers=flags.enable_serialization_as_tensor_content,
        tls=_tls(flags.ssl_config_file, stack) if flags.ssl_config_file else None,
        rest_tls=False,
        opens_when_ready=True,
    )


def _models(flags: argparse.Namespace) -> list[ModelConfig]:
    if flags.model_config_file:
        return read_models(Path(flags.model_config_file))
    if not flags.model_base_path:
        _fail("--model_base_path or --model_config_file is needed: which model is to be served?")
    return [ModelConfig(flags.model_name, folder_of(flags.model_base_path))]


def _tls(file: str, stack: ExitStack) -> Tls:
    """The keys and certificates of an SSLConfig, as files of a folder that nobody else can read."""
    config = read_ssl(Path(file))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    paths = {}
    for name in ("server_cert", "server_key", "custom_ca"):
        paths[name] = folder / name
        paths[name].write_text(getattr(config, name), "utf-8")
    return Tls(
        paths["server_cert"], paths["server_key"], paths["custom_ca"] if config.client_verify else None
    )


def _say_listening(at: Addresses) -> None:
    log.info("REST at port %s, gRPC at port %s", at.rest_port, at.grpc_port)


def _say_ready(at: Addresses) -> None:
    log.info("serving at %s", at.host)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _fail(message: str, code: int = BAD_INPUT) -> NoReturn:
    sys.stderr.write(f"{PROGRAM}: {message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
