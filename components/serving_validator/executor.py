"""ServingValidator: work."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any

from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, path_utils

from components.serving_validator import checks, model_server
from components.shared import examples, names
from serving.client import Client, TransportName

BLESSED_FILE, NOT_BLESSED_FILE = "INFRA_BLESSED", "INFRA_NOT_BLESSED"  # InfraValidator's names

logger = logging.getLogger(__name__)


@dataclass
class Report:
    """What was found; written as JSON.

    Attributes:
        blessed: whether the model may be pushed.
        reason: why, or why not; one line.
        examples: how many were sent to each signature by each API; `decode` gets a few of them.
        warmup_requests: how many the server replayed.
        latency_ms: 95 % quantile for one image, by API.
    """

    blessed: bool = False
    reason: str = ""
    examples: int = 0
    warmup_requests: int = 0
    latency_ms: dict[str, float] = field(default_factory=dict)


class Executor(BaseExecutor):
    """Serves the candidate, asks each signature for images by REST and gRPC, compares, and times it."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the `blessing` artifact; a model that answers wrongly is no error of the node.

        Raises:
            ValueError: where the split has no examples.
            checks.MachineError: where the server does not start, goes away or is too slow: that says
                nothing of the model for ever, so the node fails, and the next run tries again.
        """
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        report = Report()
        try:
            _validate(input_dict, exec_properties, report)
            report.blessed = True
            worst = max(report.latency_ms.values())
            report.reason = (
                f"{report.examples} images by REST and gRPC: the signatures answer as the model does, "
                f"one image in {worst:.1f} ms"
            )
        except checks.RefusedError as error:
            report.reason = str(error)
        logger.info("%s: %s", "blessed" if report.blessed else "not blessed", report.reason)
        _write(blessing, report)


def _validate(
    input_dict: dict[str, list[Artifact]], exec_properties: dict[str, Any], report: Report
) -> None:
    model = artifact_utils.get_single_instance(input_dict["model"])
    folder = path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
    with tempfile.TemporaryDirectory(prefix="serving-validator-") as scratch:
        version_dir = Path(scratch) / model_server.MODEL / "1"
        # Wherever the artifact lies, a server reads files of this machine, in a folder with a number.
        io_utils.copy_dir(folder, str(version_dir))
        paths = examples.split_files(
            artifact_utils.get_single_instance(input_dict["examples"]), exec_properties["split"]
        )
        sample = next(examples.records(paths, exec_properties["num_examples"])).numpy().tolist()
        report.examples = len(sample)
        log = Path(scratch) / "server.log"
        with model_server.serving(version_dir.parent, exec_properties["server_binary"], log) as server:
            loaded = checks.load(folder)
            signatures = loaded.signatures
            report.warmup_requests = checks.check_warmup(version_dir, signatures)
            inputs = checks.requests(signatures, sample)
            expected = {
                name: checks.own_answer(name, signatures[name], asked) for name, asked in inputs.items()
            }
            try:
                ports = server.ports()
                _ask("rest", ports.rest, inputs, expected, report)
                _ask("grpc", ports.grpc, inputs, expected, report)
            except Exception:
                logger.warning("the server's log:\n%s", log.read_text(errors="replace"))
                raise
    _check_budget(report.latency_ms, exec_properties["latency_budget_ms"])


def _check_budget(latency_ms: dict[str, float], budget_ms: float) -> None:
    for transport, taken_ms in latency_ms.items():
        if taken_ms > budget_ms:
            raise checks.MachineError(
                f"{transport}: 95 % of requests of one image take up to {taken_ms:.1f} ms, over the budget "
                f"of {budget_ms:g} ms: run again when the machine is less busy, or raise "
                "serving_validator.latency_budget_ms"
            )


def _ask(
    transport: TransportName,
    port: int,
    inputs: dict[str, checks.Inputs],
    expected: dict[str, Any],
    report: Report,
) -> None:
    with Client(model_server.HOST, port, transport, model=model_server.MODEL, timeout_s=60.0) as client:
        for name, asked in inputs.items():
            checks.check_answers(client, transport, name, asked, expected[name])
        report.latency_ms[transport] = checks.latency_ms(client, transport, inputs[checks.SIGNATURES[0]])


def _write(blessing: Artifact, report: Report) -> None:
    folder = PurePath(blessing.uri)
    name = BLESSED_FILE if report.blessed else NOT_BLESSED_FILE
    io_utils.write_string_file(str(folder / name), "")
    io_utils.write_string_file(
        str(folder / names.SERVING_VALIDATOR_FILE), json.dumps(asdict(report), indent=2)
    )
    blessing.set_int_custom_property("blessed", int(report.blessed))
    blessing.set_string_custom_property(names.REASON, report.reason)
