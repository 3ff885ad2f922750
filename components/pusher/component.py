"""Pusher: interface."""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import DataBlessing
from components.pusher.executor import Executor


class PusherSpec(ComponentSpec):
    """TFX's own inputs, what the verdict compared the model with, and what tells of its training."""

    PARAMETERS = {"push_destination": ExecutionParameter(type=pusher_pb2.PushDestination)}
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model),
        "data_blessing": ChannelParameter(type=DataBlessing),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
    }
    OUTPUTS = {"pushed_model": ChannelParameter(type=standard_artifacts.PushedModel)}


class Pusher(BaseComponent):
    """Pushes a blessed model: all of a version or none of it, and only over what it was compared with."""

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: BaseChannel,
        model_blessing: BaseChannel,
        infra_blessing: BaseChannel,
        baseline_model: BaseChannel,
        data_blessing: BaseChannel,
        evaluation: BaseChannel,
        push_destination: pusher_pb2.PushDestination,
    ) -> None:
        """Declare the node.

        Args:
            model: the Trainer's output.
            model_blessing: the Evaluator's verdict.
            infra_blessing: ServingValidator's.
            baseline_model: what the Evaluator compared the model with.
            data_blessing: DataGate's output, with the facts of the training data.
            evaluation: the Evaluator's output, with the model's answers.
            push_destination: the folder of version folders; empty: the artifact alone holds the model.
        """
        super().__init__(
            PusherSpec(
                model=model,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                baseline_model=baseline_model,
                data_blessing=data_blessing,
                evaluation=evaluation,
                push_destination=push_destination,
                pushed_model=Channel(type=standard_artifacts.PushedModel),
            )
        )
