"""CuratedSchema: work."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

# The name that TFX's own schema components use; readers take the only file of the folder.
SCHEMA_FILE = "schema.pbtxt"


class Executor(BaseExecutor):
    """Parses the schema, so that a typing mistake stops here, and writes it."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],  # noqa: ARG002
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write `exec_properties["schema_text"]` into the `schema` artifact.

        Raises:
            ValueError: when the text is not a schema, with the parser's line and column.
        """
        try:
            schema = text_format.Parse(exec_properties["schema_text"], schema_pb2.Schema())
        except text_format.ParseError as error:
            raise ValueError(f"the curated schema does not parse: {error}") from None
        uri = artifact_utils.get_single_uri(output_dict["schema"])
        io_utils.write_string_file(str(PurePath(uri) / SCHEMA_FILE), text_format.MessageToString(schema))
