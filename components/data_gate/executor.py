"""DataGate: work."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

from components.data_gate import checks, schema, survey
from components.data_gate.checks import Anomaly, Thresholds
from components.shared import examples, handover, names
from components.shared.dataset_facts import FACTS_FILE, DatasetFacts

logger = logging.getLogger(__name__)


class DataAnomaliesError(Exception):
    """The data are not what they should be; the text lists every anomaly."""


class Executor(BaseBeamExecutor):
    """Computes the facts of the data, looks for anomalies, and raises or blesses the data."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the `blessing` artifact: facts.json, and data_gate.json with all anomalies that passed.

        Its custom properties are `blessed`, `leaked` (test images that are in train too) and `allowed`, the
        names of anomalies that `allow` let through.

        Raises:
            DataAnomaliesError: naming each anomaly, with the share of the data that it concerns.
            dataset_facts.FactsError: where the previous data's facts are not to be read.
        """
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        data = artifact_utils.get_single_instance(input_dict["examples"])
        facts = self._facts_of(data, exec_properties["dataset"], blessing.uri)
        before = _previous(input_dict)
        errors, warnings = _schema_anomalies(
            artifact_utils.get_single_instance(input_dict["anomalies"]), facts
        )
        errors += checks.find(facts, before, _thresholds(exec_properties))
        for warning in warnings:
            logger.warning("%s", warning)
        if exec_properties["stop_at"] == "warning":
            errors = warnings + errors
        allow = [name for name in exec_properties["allow"].split(",") if name]
        stopping = checks.unallowed(errors, allow)
        if stopping:
            raise DataAnomaliesError(_why(stopping, allow))
        blessing.set_int_custom_property("blessed", 1)
        blessing.set_int_custom_property("leaked", sum(facts.leaked.values()))
        blessing.set_string_custom_property("allowed", ",".join(each.name for each in errors))
        absent = examples.absent_classes(data)
        left_out = examples.skipped(data)
        for each in absent:
            logger.warning("class %s has no example in any split", _name(data, each))
        for picture, reason in left_out.items():
            logger.warning("left out: %s: %s", picture, reason)
        report = {
            "examples": {split: found.examples for split, found in facts.splits.items()},
            "absent_classes": [_name(data, each) for each in absent],
            "skipped": left_out,
            "splits": list(facts.splits),
            "compared_with": before.fingerprint if before else None,
            "leaked": facts.leaked,
            "allowed": [_as_json(each) for each in errors],
            "warnings": [_as_json(each) for each in warnings],
        }
        io_utils.write_string_file(str(PurePath(blessing.uri) / names.DATA_GATE_FILE), json.dumps(report))
        # Last: who finds facts finds those of data that were let through.
        io_utils.write_string_file(str(PurePath(blessing.uri) / FACTS_FILE), facts.to_json())

    def _facts_of(self, data: Artifact, dataset: str, folder: str) -> DatasetFacts:
        folders = {
            split: artifact_utils.get_split_uri([data], split)
            for split in artifact_utils.decode_split_names(data.split_names)
        }
        classes = data.get_int_custom_property("num_classes")
        with self._make_beam_pipeline() as pipeline:
            found = survey.run(pipeline, folders, examples.image_input(data), classes)
            handover.give(found, folder)
        fingerprint = data.get_string_custom_property("fingerprint")
        return survey.dataset_facts(handover.take(folder), dataset, fingerprint)


def _name(data: Artifact, label: int) -> str:
    names_of = examples.class_names(data)
    return names_of[label] if names_of else str(label)


def _why(stopping: Sequence[Anomaly], allow: Sequence[str]) -> str:
    """A line for each anomaly, and what to do; the setting keeps what is allowed already."""
    many = len(stopping) > 1
    passing = dict.fromkeys([*allow, *(anomaly.name for anomaly in stopping)])
    setting = shlex.quote(f"data_gate.allow={','.join(passing)}")
    return "\n".join(
        [
            f"{len(stopping)} anomal{'ies' if many else 'y'} in the data",
            *(f"  {anomaly}" for anomaly in stopping),
            f"repair the data, or let {'them' if many else 'it'} pass with --set {setting}",
        ]
    )


def _previous(input_dict: Mapping[str, list[Artifact]]) -> DatasetFacts | None:
    given = input_dict.get("previous")
    if not given:
        return None
    with fileio.open(str(PurePath(artifact_utils.get_single_uri(given)) / FACTS_FILE), "r") as file:
        return DatasetFacts.from_json(file.read())


def _schema_anomalies(artifact: Artifact, facts: DatasetFacts) -> tuple[list[Anomaly], list[Anomaly]]:
    """Those that stop the run, and those that are only worth a warning."""
    found = [
        each
        for split in artifact_utils.decode_split_names(artifact.split_names)
        for each in schema.find(
            split,
            schema.read_anomalies(artifact_utils.get_split_uri([artifact], split)),
            facts.splits[split],
        )
    ]
    return (
        [anomaly for severity, anomaly in found if severity == "error"],
        [anomaly for severity, anomaly in found if severity == "warning"],
    )


def _thresholds(exec_properties: Mapping[str, Any]) -> Thresholds:
    return Thresholds(
        **{name: float(exec_properties[f"max_{name}"]) for name in Thresholds.__annotations__}
    )


def _as_json(anomaly: Anomaly) -> dict[str, Any]:
    return vars(anomaly).copy()
