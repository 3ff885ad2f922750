"""DataGate: interface."""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec

from components.artifacts import DataBlessing
from components.data_gate.executor import Executor


class DataGateSpec(ComponentSpec):
    """Anomalies in, a blessing out."""

    PARAMETERS: dict = {}
    INPUTS = {"anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies)}
    OUTPUTS = {"blessing": ChannelParameter(type=DataBlessing)}


class DataGate(BaseComponent):
    """Stops the run when there are anomalies, and says which.

    ExampleValidator only records what it finds. Nodes that must not see bad data depend on this one
    (`node.add_upstream_node(data_gate)`).
    """

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(self, anomalies: BaseChannel) -> None:
        """Declare the node.

        Args:
            anomalies: ExampleValidator's output, of type ExampleAnomalies.
        """
        super().__init__(DataGateSpec(anomalies=anomalies, blessing=Channel(type=DataBlessing)))
