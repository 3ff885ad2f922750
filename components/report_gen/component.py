"""ReportGen: interface."""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import standard_artifacts
from tfx.types.channel import BaseChannel, Channel
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components.artifacts import DataBlessing, Report
from components.report_gen.executor import Executor


class ReportGenSpec(ComponentSpec):
    """What a run made and found in, a page out."""

    PARAMETERS = {
        "model_name": ExecutionParameter(type=str),
        "recipe": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "data_blessing": ChannelParameter(type=DataBlessing),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
        "pushed_model": ChannelParameter(type=standard_artifacts.PushedModel),
    }
    OUTPUTS = {"report": ChannelParameter(type=Report)}


class ReportGen(BaseComponent):
    """Writes one self-contained HTML page about the run, whether the model was pushed or refused.

    Nothing but artifacts goes in, so the page is the same on every target. What only the orchestrator
    knows (seconds per node, lineage) is filled in where there is one to ask: see `executor.RUN_MARK`.
    """

    SPEC_CLASS = ReportGenSpec
    EXECUTOR_SPEC = ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: BaseChannel,
        statistics: BaseChannel,
        anomalies: BaseChannel,
        data_blessing: BaseChannel,
        model_run: BaseChannel,
        evaluation: BaseChannel,
        model_blessing: BaseChannel,
        infra_blessing: BaseChannel,
        pushed_model: BaseChannel,
        model_name: str | RuntimeParameter,
        recipe: str | RuntimeParameter,
    ) -> None:
        """Declare the node.

        Args:
            examples: ImageExampleGen's output, with the facts about the data.
            statistics: StatisticsGen's output.
            anomalies: ExampleValidator's output.
            data_blessing: DataGate's output: what it let pass.
            model_run: the Trainer's metrics.json.
            evaluation: the Evaluator's output: the verdict, and the worst mistakes.
            model_blessing: the Evaluator's verdict.
            infra_blessing: ServingValidator's.
            pushed_model: Pusher's output, which says whether anything was pushed.
            model_name: what the model is called.
            recipe: which hyper-parameters trained it.
        """
        super().__init__(
            ReportGenSpec(
                examples=examples,
                statistics=statistics,
                anomalies=anomalies,
                data_blessing=data_blessing,
                model_run=model_run,
                evaluation=evaluation,
                model_blessing=model_blessing,
                infra_blessing=infra_blessing,
                pushed_model=pushed_model,
                model_name=model_name,
                recipe=recipe,
                report=Channel(type=Report),
            )
        )
