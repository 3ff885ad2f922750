"""What runs in every step's container: between Kubeflow's launcher and TFX's executor.

TFX has an entrypoint of its own, made for another backend. With the open-source one it fails in every
step, for four reasons, each corrected here by a function: `with_types`, `without_drivers_outputs`,
`to_local` and `to_remote`. They work on the JSON of Kubeflow's messages and know nothing of TFX.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from components.shared import files
from kubeflow import bindings
from pipeline.runtime import environment, process

Json = Any

# Where the launcher keeps what belongs to a remote URI, below its root, which is / in a pod.
FOLDERS = {"minio://": "minio/", "s3://": "s3/", "gs://": "gcs/"}
ROOT_VARIABLE = "LAUNCHER_ROOT"
LOGS_OUTPUT = "executor-logs"
WORKERS_FLAG = "--workers"
CHECKPOINT_DIR = "checkpoint_dir"  # of the Trainer's custom_config
_MODEL = "Format-Serving"  # in TFX's Model artifact
# Artifact types that have Kubeflow's names, for its page to know them, and the classes behind them.
CLASSES = {
    "system.Metrics": "components.Metrics",
    "system.ClassificationMetrics": "components.ClassificationMetrics",
}
TERMINATED = 128 + signal.SIGTERM
TFX_VERSION = "tfx_version"
# Argo's runtime leaves 0. The group writes too: under an id that a cluster gives (OpenShift) that is all a
# pod has in common with the one before it.
UMASK = 0o002

_LOG = logging.getLogger("kubeflow.entrypoint")  # in a step it is __main__


def with_types(executor_input: Json, inputs_spec: Json) -> None:
    """Set the type of each input artifact, in place: the backend sends it blank.

    Backends without ML Metadata send the whole schema as a title; the component's own inputs know better in
    either case. An output's type arrives, but may be such a title too. Types named after Kubeflow's own get
    the names of the classes that stand for them.
    """
    declared = inputs_spec.get("artifacts", {})
    for name, artifacts in executor_input.get("inputs", {}).get("artifacts", {}).items():
        for artifact in artifacts.get("artifacts", []):
            if name in declared:
                artifact["type"] = declared[name]["artifactType"]
    for artifacts in executor_input.get("outputs", {}).get("artifacts", {}).values():
        for artifact in artifacts.get("artifacts", []):
            title = artifact.get("type", {}).get("schemaTitle", "")
            if "title:" in title:
                artifact["type"] = {"instanceSchema": title}
            schema = artifact.get("type", {}).get("instanceSchema", "")
            for name, class_path in CLASSES.items():
                if schema.startswith(f"title: {name}\n"):
                    artifact["type"]["instanceSchema"] = schema.replace(name, class_path, 1)


def without_drivers_outputs(executor_input: Json) -> None:
    """Drop the output that the driver adds for the step's log, in place; TFX cannot import its type."""
    executor_input.get("outputs", {}).get("artifacts", {}).pop(LOGS_OUTPUT, None)


def to_local(executor_input: Json, root: str) -> dict[str, str]:
    """Put the launcher's folders in place of remote URIs, in place, and make the outputs' folders.

    The launcher has downloaded the inputs into these folders and uploads the outputs from there;
    TensorFlow cannot open the URIs themselves.

    Args:
        executor_input: the message.
        root: folder of the launcher's folders.

    Returns:
        The remote URI of each local one.
    """
    remote = {}
    for side in ("inputs", "outputs"):
        for artifacts in executor_input.get(side, {}).get("artifacts", {}).values():
            for artifact in artifacts.get("artifacts", []):
                uri = artifact.get("uri", "")
                artifact["uri"] = local_path(uri, root)
                remote[artifact["uri"]] = uri
                if side == "outputs" and not Path(artifact["uri"]).exists():
                    Path(artifact["uri"]).mkdir(parents=True)
    return remote


def local_path(uri: str, root: str) -> str:
    """The launcher's folder for a remote URI; other URIs stay as they are."""
    for scheme, folder in FOLDERS.items():
        if uri.startswith(scheme):
            return f"{root.rstrip('/')}/{folder}{uri.removeprefix(scheme)}"
    return uri


def to_remote(executor_output: Json, remote: dict[str, str], metrics: Collection[str] = ()) -> None:
    """Put remote URIs back in place of local ones, also inside metadata, and drop empty metadata.

    Otherwise the launcher uploads nothing, with no more than a warning, or fails on a null. Kubeflow's page
    shows all metadata of a metrics artifact as a table, so TFX's own note stays away from it.

    Args:
        executor_output: the message, changed in place.
        remote: the remote URI of each local one.
        metrics: keys of the outputs whose metadata are figures to show.
    """
    # The longest first: an output may lie inside another one's folder.
    known = sorted(remote, key=len, reverse=True)

    def back(text: str) -> str:
        for local in known:
            if local and (text == local or text.startswith(f"{local}/")):
                return remote[local] + text[len(local) :]
        return text

    for name, artifacts in executor_output.get("artifacts", {}).items():
        dropped = {TFX_VERSION} if name in metrics else set()
        for artifact in artifacts.get("artifacts", []):
            artifact["uri"] = back(artifact.get("uri", ""))
            artifact["metadata"] = {
                key: back(value) if isinstance(value, str) else value
                for key, value in artifact.get("metadata", {}).items()
                if value is not None and key not in dropped
            }


def metrics_outputs(executor_input: Json) -> set[str]:
    """Keys of the outputs that Kubeflow's page shows as a table or a curve."""
    return {
        name
        for name, artifacts in executor_input.get("outputs", {}).get("artifacts", {}).items()
        for artifact in artifacts.get("artifacts", [])
        if any(kind in artifact.get("type", {}).get("instanceSchema", "") for kind in CLASSES.values())
    }


def with_remote_names(text: str, remote: dict[str, str]) -> str:
    """A message with remote URIs in place of the launcher's folders, which nobody else can see."""
    for local in sorted(filter(None, remote), key=len, reverse=True):
        text = text.replace(local, remote[local])
    return text


def fill_parameters(executor_input: Json, inputs_spec: Json, bound: list[Json]) -> None:
    """Put the parameters of the run into the node's own, in place; see kubeflow.bindings."""
    values = executor_input.get("inputs", {}).get("parameterValues", {})
    declared = inputs_spec.get("parameters", {})
    for name, value in values.items():
        # Every number arrives as a double.
        if declared.get(name, {}).get("parameterType") == "NUMBER_INTEGER":
            if value != int(value):  # the server takes what any client sends
                raise ValueError(f"{name.removeprefix(bindings.PREFIX)} takes a whole number, not {value}")
            values[name] = int(value)
    names = {name for binding in bound for name in bindings.names_in(binding["template"])}
    of_run = {name: values.pop(bindings.PREFIX + name) for name in names}
    bindings.fill(values, bound, of_run)


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one step: the launcher's message in, TFX's executor, the launcher's file out.

    Exit code: as `end_with`.
    """
    parser = argparse.ArgumentParser(prog="kubeflow.entrypoint", allow_abbrev=False)
    parser.add_argument("--executor_class_path", required=True)
    parser.add_argument("--json_serialized_invocation_args", required=True)
    parser.add_argument("--json_serialized_inputs_spec_args", required=True)
    parser.add_argument(bindings.FLAG, default="[]")
    parser.add_argument(WORKERS_FLAG, type=int, default=1)
    arguments, beam_args = parser.parse_known_args(argv)
    end_with(arguments.executor_class_path, functools.partial(run_step, arguments, beam_args))


def end_with(name: str, run: Callable[[], None]) -> NoReturn:
    """Do something as the last of this process, with its log on standard output.

    Exit code: 0, 1 where it failed (the message is the last line), 143 after SIGTERM.
    """
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname).1s %(name)s: %(message)s"
    )
    scratch = Path(tempfile.mkdtemp(prefix="step-"))
    os.umask(UMASK)
    _quieten()
    try:
        with environment.scratch_environment(scratch):
            run()
    except Terminated:
        _exit(TERMINATED, f"{name}: terminated; nothing is handed on")
    except Exception as error:
        logging.exception("the step failed")
        told = str(error) if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
        _exit(1, f"{name} failed: {' '.join(told.split())}")
    _exit(0, f"{name}: done")


class StepError(Exception):
    """The executor's error, in words of remote URIs."""


class _Chatter(logging.Filter):
    """Drops what libraries tell at INFO of each step and nobody asks for, by the file that tells it."""

    FILES = (
        # All artifacts of the step as protos: hundreds of lines; `run_step` tells their URIs.
        "tfx/orchestration/kubeflow/v2/container/kubeflow_v2_run_executor.py",
        # Packages that this project does not use are not installed.
        "tensorflow_model_analysis/utils/model_util.py",
        "tfx/components/bulk_inferrer/executor.py",
        # Each feature, each time that Transform looks at it.
        "tfx_bsl/tfxio/tensor_representation_util.py",
        "tfx/utils/dependency_utils.py",
        "tensorflow/python/checkpoint/functional_saver.py",
        "tensorflow/python/saved_model/signature_serialization.py",
    )

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to tell it."""
        return record.levelno > logging.INFO or not record.pathname.endswith(self.FILES)


def _quieten() -> None:
    """Keep from the step's log what says nothing of the step."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(_Chatter())
    if not _has_gpu():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _has_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


@contextmanager
def _without_complaints_about_cuda() -> Iterator[None]:
    """TensorFlow says several times, once as an error, that there is no GPU. Where one is, it may speak."""
    if _has_gpu():
        yield
        return
    with process.silent_errors():
        yield
        if tensorflow := sys.modules.get("tensorflow"):
            tensorflow.config.list_physical_devices()


class Terminated(BaseException):
    """SIGTERM arrived. No Exception, so that no executor takes it for a fault of its own."""


def run_step(arguments: argparse.Namespace, beam_args: list[str]) -> None:
    """Adapt the message, run the executor, adapt its answer; a step that fails leaves no outputs."""
    executor_input = json.loads(arguments.json_serialized_invocation_args)
    inputs_spec = json.loads(arguments.json_serialized_inputs_spec_args)
    with_types(executor_input, inputs_spec)
    without_drivers_outputs(executor_input)
    fill_parameters(executor_input, inputs_spec, json.loads(arguments.runtime_parameters))
    metrics = metrics_outputs(executor_input)
    remote = to_local(executor_input, os.environ.get(ROOT_VARIABLE, "/"))
    output_file = Path(executor_input["outputs"]["outputFile"])
    with _no_half_written_outputs(executor_input, output_file), _work_folder(executor_input) as work:
        answer = work / output_file.name
        executor_input["outputs"]["outputFile"] = str(answer)
        arguments.json_serialized_invocation_args = json.dumps(executor_input)
        for place, uri in _places(executor_input, remote):
            _LOG.info("%s: %s", place, uri)
        if arguments.workers == 1:
            execute(arguments, beam_args, remote)
        else:
            _execute_together(arguments, beam_args, remote, work)
        executor_output = json.loads(answer.read_text())
        to_remote(executor_output, remote, metrics)
        files.write_text(output_file, json.dumps(executor_output, indent=2))


def execute(arguments: argparse.Namespace, beam_args: list[str], remote: dict[str, str]) -> None:
    """Run TFX's executor.

    Args:
        arguments: of this module, with a message that names what is in this pod.
        beam_args: the others.
        remote: the remote URI of each local one.
    """
    # Beam tells at INFO each stage and each translation of a pipeline: half of the lines of a step.
    logging.getLogger("apache_beam").setLevel(logging.WARNING)
    with environment.heavy_imports(), _without_complaints_about_cuda():
        from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

        from pipeline.runtime import beam_memo
    with beam_memo.remembering(), _told_remotely(remote):
        kubeflow_v2_run_executor._run_executor(arguments, beam_args)


def _execute_together(
    arguments: argparse.Namespace, beam_args: list[str], remote: dict[str, str], work: Path
) -> None:
    """Run the executor in this pod, and in others with copies of its inputs and of the checkpoints."""
    from kubeflow import worker_pods  # has Kubernetes' client, which no other step needs

    def below_root(path: str | Path) -> str:
        return str(Path(path).relative_to(os.environ.get(ROOT_VARIABLE, "/")))

    message = json.loads(arguments.json_serialized_invocation_args)
    inputs, outputs, theirs = message["inputs"], message["outputs"], work / "worker"
    files = {below_root(uri): uri for uri in _uris(inputs)}
    settings = json.loads(inputs["parameterValues"]["custom_config"])
    kept = settings.get(CHECKPOINT_DIR, "")
    if kept and Path(kept).is_dir():
        settings[CHECKPOINT_DIR] = str(theirs / CHECKPOINT_DIR)
        inputs["parameterValues"]["custom_config"] = json.dumps(settings)
        files[below_root(theirs / CHECKPOINT_DIR)] = kept
    # What they write is thrown away.
    outputs["outputFile"] = str(theirs / "output.json")
    for name, artifacts in outputs["artifacts"].items():
        (artifact,) = artifacts["artifacts"]
        artifact["uri"] = str(theirs / name)
        # TFX asks each that trains for a model.
        Path(artifact["uri"], _MODEL if name == "model" else "").mkdir(parents=True)
    given = vars(arguments) | {"json_serialized_invocation_args": json.dumps(message)}
    step = theirs / "step.json"
    step.write_text(json.dumps({"arguments": given, "beam_args": beam_args, "remote": remote}))
    files[below_root(theirs)] = str(theirs)
    try:
        worker_pods.train(
            functools.partial(execute, arguments, beam_args, remote), arguments.workers, files, str(step)
        )
    except worker_pods.WorkerPodsError as error:
        raise StepError(str(error)) from None


def _places(executor_input: Json, remote: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Each artifact of the step: what it is called, and its URI."""
    for side in ("inputs", "outputs"):
        for name, artifacts in sorted(executor_input[side].get("artifacts", {}).items()):
            for artifact in artifacts["artifacts"]:
                yield f"{side[:-1]} {name}", remote.get(artifact["uri"], artifact["uri"])


def _uris(side: Json) -> list[str]:
    return [a["uri"] for artifacts in side.get("artifacts", {}).values() for a in artifacts["artifacts"]]


@contextmanager
def _told_remotely(remote: dict[str, str]) -> Iterator[None]:
    """Let an executor's error name the URIs that a person knows."""
    try:
        yield
    except Exception as error:
        raise StepError(f"{type(error).__name__}: {with_remote_names(str(error), remote)}") from error


@contextmanager
def _work_folder(executor_input: Json) -> Iterator[Path]:
    """A folder for TFX's temporary files, which it keeps next to its answer, until the step is over.

    It lies next to the step's outputs, where Beam's workers on other machines find it.
    """
    parent = Path([*_uris(executor_input["outputs"]), executor_input["outputs"]["outputFile"]][0]).parent
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".step-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _no_half_written_outputs(executor_input: Json, output_file: Path) -> Iterator[None]:
    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except BaseException:
        output_file.unlink(missing_ok=True)
        for artifacts in executor_input["outputs"].get("artifacts", {}).values():
            for artifact in artifacts["artifacts"]:
                shutil.rmtree(artifact["uri"], ignore_errors=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(code: int, last_line: str) -> NoReturn:
    """End the process at once: libraries leave threads behind that would keep a failed step alive."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.write(f"{last_line}\n")
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
