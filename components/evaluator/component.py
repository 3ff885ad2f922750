"""Evaluator: interface, which is TFX's with gates of our own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tensorflow_model_analysis.proto import config_pb2
from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import json_utils

from components.artifacts import ClassificationMetrics, Metrics
from components.evaluator import tfma_files
from components.evaluator.executor import Executor


class EvaluatorSpec(ComponentSpec):
    """Examples and one or two models in; the evaluation, figures for a dashboard, and a blessing out."""

    PARAMETERS = {
        "eval_config": ExecutionParameter(type=config_pb2.EvalConfig),
        "example_splits": ExecutionParameter(type=str),
        "gates": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "model": ChannelParameter(type=standard_artifacts.Model),
        "baseline_model": ChannelParameter(type=standard_artifacts.Model, optional=True),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun, optional=True),
    }
    OUTPUTS = {
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "metrics": ChannelParameter(type=Metrics),
        "confusion": ChannelParameter(type=ClassificationMetrics),
    }


class Evaluator(BaseBeamComponent):
    """Asks a model about every example once, judges it by every gate, and blesses it or not.

    TFMA has a gate for none of calibration, too few examples and robustness, and none of its thresholds
    knows an interval; so all gates are ours. Its files are there for its own tools to look at, written from
    the same counts: see `tfma_files`. The answers stay next to them: see components.shared.answers.
    """

    SPEC_CLASS = EvaluatorSpec
    EXECUTOR_SPEC = BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: BaseChannel,
        model: BaseChannel,
        split: str,
        eval_config: config_pb2.EvalConfig,
        gates: Mapping[str, Any],
        baseline_model: BaseChannel | None = None,
        model_run: BaseChannel | None = None,
    ) -> None:
        """Declare the node.

        Args:
            examples: ImageExampleGen's output.
            model: the Trainer's output.
            split: the split that the verdict comes from.
            eval_config: what TFMA's files hold: that of `tfma_files.eval_config`, no other.
            gates: the fields of components.evaluator.gates.Thresholds.
            baseline_model: the model in production; one that is not there is no error.
            model_run: the Trainer's output, for gates on the model function's own metrics.

        Raises:
            tfma_files.UnknownEvalConfigError: for another eval_config.
        """
        tfma_files.check(eval_config)
        super().__init__(
            EvaluatorSpec(
                examples=examples,
                model=model,
                baseline_model=baseline_model,
                model_run=model_run,
                eval_config=eval_config,
                example_splits=json_utils.dumps([split]),
                gates=json.dumps(gates, sort_keys=True),
                evaluation=Channel(type=standard_artifacts.ModelEvaluation),
                blessing=Channel(type=standard_artifacts.ModelBlessing),
                metrics=Channel(type=Metrics),
                confusion=Channel(type=ClassificationMetrics),
            )
        )
