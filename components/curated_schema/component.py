"""CuratedSchema: interface."""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import standard_artifacts
from tfx.types.channel import Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.curated_schema.executor import Executor


class CuratedSchemaSpec(ComponentSpec):
    """One parameter in, one Schema artifact out."""

    PARAMETERS = {"schema_text": ExecutionParameter(type=str)}
    INPUTS: dict = {}
    OUTPUTS = {"schema": ChannelParameter(type=standard_artifacts.Schema)}


class CuratedSchema(BaseComponent):
    """Writes a given schema as an artifact.

    TFX's ImportSchemaGen takes a path: an edited file is then a stale cache hit, and on a cluster the
    file must exist inside the container. Here the text itself is the parameter.
    """

    SPEC_CLASS = CuratedSchemaSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(self, schema_text: str) -> None:
        """Declare the node.

        Args:
            schema_text: a tensorflow.metadata.v0.Schema as a text proto.
        """
        super().__init__(
            CuratedSchemaSpec(schema_text=schema_text, schema=Channel(type=standard_artifacts.Schema))
        )
