"""One local run from its config to its outcome, and how the outcome is told."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ml_metadata.proto import metadata_store_pb2
from rich.console import Console
from tfx.orchestration.pipeline import Pipeline

from components.shared.verdict import Verdict
from pipeline import definition
from pipeline.config import PipelineConfig
from pipeline.history import records, report_page, verdict
from pipeline.history.rollback import versions
from pipeline.local import lock, overlap, recovery, runner
from pipeline.previous_data import with_previous_data

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a run came to: an error, or a verdict and perhaps a pushed model."""

    error: str | None = None
    verdict: Verdict | None = None
    not_servable: str | None = None  # why a server did not answer with the model as it should
    pushed: Path | None = None  # the version folder
    all_cached: bool = False
    report: Path | None = None  # the page about the run


@dataclass(frozen=True)
class Tuned:
    """What a search came to: an error, or the best recipe."""

    error: str | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    accuracy: float = 0.0  # on the validation split
    trials: int = 0


def run(config: PipelineConfig, observer: runner.Observer, run_id: str) -> Outcome:
    """Run the pipeline; what goes wrong in it is part of the outcome, with the details in the log."""
    pipeline = definition.create_pipeline(with_previous_data(config))

    def work() -> Outcome:
        try:
            return finished()
        except runner.NodeError as error:
            # Whatever went wrong, the page tells; a second fault must not hide the first.
            with contextlib.suppress(Exception):
                run_so_far = records.History(config).find(run_id)
                report_page.write(config, run_so_far, f"{error.node}: {error}.")
            raise

    def finished() -> Outcome:
        nodes = overlap.NODES if config.overlap and overlap.room() else ()
        outcome = _collect(pipeline, runner.run(pipeline, observer, run_id, beside=nodes))
        page = report_page.write(config, records.History(config).find(run_id))
        return replace(outcome, report=page)

    return _guarded(Outcome, work)


def tune(config: PipelineConfig, trials: int, observer: runner.Observer, run_id: str) -> Tuned:
    """Search for a better recipe; what goes wrong is part of the outcome, with the details in the log."""
    pipeline = definition.create_tuning_pipeline(with_previous_data(config), trials)
    return _guarded(Tuned, lambda: _best(config, pipeline, runner.run(pipeline, observer, run_id)))


def _guarded(failed: Callable[..., T], work: Callable[[], T]) -> T:
    try:
        return work()
    except lock.BusyError as error:
        return failed(error=str(error))
    except runner.NodeError as error:
        return failed(error=f"{error.node} failed: {error}")
    except Exception as error:
        logging.exception("the run failed outside of its nodes")
        return failed(error=f"the run failed: {type(error).__name__}: {error}".splitlines()[0])


def mend_and_exit(config: PipelineConfig) -> None:
    """Clean up after an interrupted run; does not return."""
    recovery.mend_in_new_process(definition.create_pipeline(config))


def _only_output(
    pipeline: Pipeline, nodes: Mapping[str, runner.NodeRun], node: str, key: str
) -> metadata_store_pb2.Artifact:
    execution_id = nodes[node].execution_id
    assert execution_id is not None
    (artifact,) = runner.output_artifacts(pipeline, execution_id, key)
    return artifact


def _collect(pipeline: Pipeline, nodes: dict[str, runner.NodeRun]) -> Outcome:
    only_output = functools.partial(_only_output, pipeline, nodes)
    pushed = only_output("Pusher", "pushed_model").custom_properties
    judged = verdict.read(only_output("Evaluator", "evaluation").uri)
    served = only_output("ServingValidator", "blessing").custom_properties
    return Outcome(
        verdict=judged,
        not_servable=None if served["blessed"].int_value else served["reason"].string_value,
        pushed=Path(pushed["pushed_destination"].string_value) if pushed["pushed"].int_value else None,
        all_cached=all(node.state == runner.CACHED for node in nodes.values()),
    )


def _best(config: PipelineConfig, pipeline: Pipeline, nodes: dict[str, runner.NodeRun]) -> Tuned:
    """The best trial, from the files that TFX's Tuner writes, as a recipe."""
    only_output = functools.partial(_only_output, pipeline, nodes)
    best = Path(only_output("Tuner", "best_hyperparameters").uri, "best_hyperparameters.txt")
    results = Path(only_output("Tuner", "tuner_results").uri, "tuner_results.json")
    trials = json.loads(results.read_text())
    return Tuned(
        recipe={"recipe": config.trainer.recipe}
        | config.trainer.overrides()
        | json.loads(best.read_text())["values"],
        accuracy=max(trial["score"] for trial in trials),
        trials=len(trials),
    )


def show(console: Console, outcome: Outcome, log: Path) -> int:
    """Print the summary of a run that reached its end; returns the exit code: 0 pushed, 1 refused."""
    judged = outcome.verdict
    assert judged is not None
    assert outcome.report is not None
    weakest = judged.weakest_class
    console.print(
        f"\naccuracy       {judged.accuracy.value:.4f} on {judged.accuracy.examples:,} test images\n"
        f"weakest digit  {weakest}, at {judged.class_accuracy[weakest].value:.4f}"
    )
    if judged.baseline:
        console.print(
            f"in production  {judged.baseline.accuracy.value:.4f}, version {judged.baseline.version}",
            soft_wrap=True,
        )
    if outcome.pushed is None:
        console.print("verdict        [bold red]refused[/]: not pushed")
        for gate in judged.failed:
            console.print(f"               {verdict.line(gate)}", soft_wrap=True)
        if outcome.not_servable:
            console.print(f"               served: {outcome.not_servable}", markup=False, soft_wrap=True)
        console.print(f"report         {_short(outcome.report)}\nlog            {_short(log)}")
        return 1
    model, served = _short(outcome.pushed), outcome.pushed.parent
    cached = ", everything from the cache" if outcome.all_cached else ""
    newest = versions(served)[-1]
    overtaken = (
        f"               (version {newest} is newer, and served)\n" if newest > int(model.name) else ""
    )
    console.print(
        f"verdict        [bold green]blessed[/] and pushed{cached}\n"
        f"model          {model}\n"
        f"{overtaken}"
        f"report         {_short(outcome.report)}\n"
        f"log            {_short(log)}\n"
        f"next           {_short(Path(sys.prefix))}/bin/mnist serve --model-dir {_short(served)}"
    )
    return 0


def _short(path: Path) -> Path:
    """The path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
