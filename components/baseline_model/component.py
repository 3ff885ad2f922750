"""BaselineModel: interface."""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.baseline_model.executor import Executor


class BaselineModelSpec(ComponentSpec):
    """A candidate in, the model that it is to be compared with out."""

    PARAMETERS = {
        "base_directory": ExecutionParameter(type=str),
        "version": ExecutionParameter(type=str),
    }
    INPUTS = {"candidate": ChannelParameter(type=standard_artifacts.Model)}
    OUTPUTS = {"result": ChannelParameter(type=standard_artifacts.Model)}


class BaselineModel(BaseComponent):
    """Keeps a copy of the model that is in production when a candidate is first judged.

    The candidate is an input for the cache's sake: it is judged once, against what it would have replaced.
    A second run with nothing changed finds that answer again, although the candidate itself is in
    production by then; a new candidate makes the node look again.
    """

    SPEC_CLASS = BaselineModelSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(self, candidate: BaseChannel, base_directory: str, version: str = "") -> None:
        """Declare the node.

        Args:
            candidate: the Trainer's output.
            base_directory: the folder of version folders that Pusher pushes to; empty: there is none.
            version: one of them; empty: the newest.
        """
        super().__init__(
            BaselineModelSpec(
                candidate=candidate,
                base_directory=base_directory,
                version=version,
                result=Channel(type=standard_artifacts.Model),
            )
        )
