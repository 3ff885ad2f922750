"""ServingValidator: interface."""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.serving_validator.executor import Executor


class ServingValidatorSpec(ComponentSpec):
    """A model and examples in, a standard InfraBlessing out."""

    PARAMETERS = {
        "split": ExecutionParameter(type=str),
        "num_examples": ExecutionParameter(type=int),
        "latency_budget_ms": ExecutionParameter(type=float),
        "server_binary": ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ServingValidator(BaseComponent):
    """Serves the candidate in a process of its own, asks it, and blesses it or says why not.

    TFX's InfraValidator wants Docker or a cluster's API; this one runs wherever Python does.
    """

    SPEC_CLASS = ServingValidatorSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: BaseChannel,
        examples: BaseChannel,
        split: str,
        num_examples: int,
        latency_budget_ms: float,
        server_binary: str = "",
    ) -> None:
        """Declare the node.

        Args:
            model: the Trainer's output.
            examples: ImageExampleGen's output.
            split: the split whose examples are sent.
            num_examples: how many of them.
            latency_budget_ms: 95 % of the requests of one image must be answered in that time, by each API.
            server_binary: path of a tensorflow_model_server to use; empty: the project's own server.
        """
        super().__init__(
            ServingValidatorSpec(
                model=model,
                examples=examples,
                split=split,
                num_examples=num_examples,
                latency_budget_ms=latency_budget_ms,
                server_binary=server_binary,
                blessing=Channel(type=standard_artifacts.InfraBlessing),
            )
        )
