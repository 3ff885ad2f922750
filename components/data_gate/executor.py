"""DataGate: work."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

ANOMALIES_FILE = "SchemaDiff.pb"  # ExampleValidator's name, one a split
REPORT_FILE = "data_gate.json"


class DataAnomaliesError(Exception):
    """The data are not what the schema says; the text lists every anomaly."""


class Executor(BaseExecutor):
    """Reads the anomalies of every split; raises, or blesses the data."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],  # noqa: ARG002
    ) -> None:
        """Write the `blessing` artifact: a JSON file of the splits that were looked at.

        Raises:
            DataAnomaliesError: naming split, feature and fault of each anomaly.
        """
        anomalies = artifact_utils.get_single_instance(input_dict["anomalies"])
        splits = artifact_utils.decode_split_names(anomalies.split_names)
        found = [
            f"{split}: {what}"
            for split in splits
            for what in describe(read_anomalies(artifact_utils.get_split_uri([anomalies], split)))
        ]
        if found:
            raise DataAnomaliesError("the data do not fit the schema: " + "; ".join(found))
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        blessing.set_int_custom_property("blessed", 1)
        io_utils.write_string_file(
            str(PurePath(blessing.uri) / REPORT_FILE), json.dumps({"splits": splits, "anomalies": found})
        )


def read_anomalies(folder: str) -> anomalies_pb2.Anomalies:
    """The anomalies of one split, from ExampleValidator's folder for it."""
    with fileio.open(str(PurePath(folder) / ANOMALIES_FILE), "rb") as file:
        return anomalies_pb2.Anomalies.FromString(file.read())


def describe(anomalies: anomalies_pb2.Anomalies) -> list[str]:
    """One line per anomaly: the feature, what is wrong with it, how much of it."""
    lines = []
    whole = anomalies.dataset_anomaly_info
    if whole.reason or whole.description:
        lines.append(f"all examples: {whole.description}")
    for name, info in sorted(anomalies.anomaly_info.items()):
        lines.append(f"{name}: {info.description or info.short_description}")
    if anomalies.data_missing:
        lines.append("there are no examples")
    return lines
