"""DataGate: interface."""

from __future__ import annotations

from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import DataBlessing
from components.data_gate.executor import Executor


class DataGateSpec(ComponentSpec):
    """Examples and anomalies in, a blessing out."""

    PARAMETERS = {
        "dataset": ExecutionParameter(type=str),
        "stop_at": ExecutionParameter(type=str),
        "allow": ExecutionParameter(type=str),
        "max_label_distance": ExecutionParameter(type=float),
        "max_image_distance": ExecutionParameter(type=float),
        "max_agreement_lost": ExecutionParameter(type=float),
        "max_leakage": ExecutionParameter(type=float),
        "max_imbalance": ExecutionParameter(type=float),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "previous": ChannelParameter(type=DataBlessing, optional=True),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=DataBlessing)}


class DataGate(BaseBeamComponent):
    """Stops the run when something is wrong with the data, and says what.

    ExampleValidator only records what it finds, and looks at each split alone. Here its anomalies stop the
    run, and so do skew between splits, drift since the previous data, labels that do not belong to their
    images, and test images that are in training too: see `checks`. Nodes that must not see bad data depend
    on this one (`node.add_upstream_node(data_gate)`).
    """

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: BaseChannel,
        anomalies: BaseChannel,
        dataset: str,
        stop_at: str,
        allow: tuple[str, ...],
        max_label_distance: float,
        max_image_distance: float,
        max_agreement_lost: float,
        max_leakage: float,
        max_imbalance: float,
        previous: BaseChannel | None = None,
    ) -> None:
        """Declare the node.

        Args:
            examples: ImageExampleGen's output.
            anomalies: ExampleValidator's output.
            dataset: name of the data set, recorded with its facts.
            stop_at: `error`, or `warning` to stop at warnings of ExampleValidator too.
            allow: names of anomalies that pass all the same; `*` stands for anything.
            max_label_distance: of label distributions; this and the following ones as checks.Thresholds.
            max_image_distance: of distributions of an image fact.
            max_agreement_lost: share of right answers lost.
            max_leakage: share of the test images that are in train too.
            max_imbalance: times that a class is as frequent as the median class.
            previous: the blessing of the data before these; without one, drift is not looked for.
        """
        super().__init__(
            DataGateSpec(
                examples=examples,
                anomalies=anomalies,
                dataset=dataset,
                stop_at=stop_at,
                allow=",".join(allow),
                max_label_distance=max_label_distance,
                max_image_distance=max_image_distance,
                max_agreement_lost=max_agreement_lost,
                max_leakage=max_leakage,
                max_imbalance=max_imbalance,
                blessing=Channel(type=DataBlessing),
                **({} if previous is None else {"previous": previous}),
            )
        )
