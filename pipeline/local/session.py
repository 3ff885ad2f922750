"""One local run from its config to its outcome, and how the outcome is told."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration.pipeline import Pipeline

from components.serving_validator import standby
from pipeline import definition
from pipeline.config import PipelineConfig
from pipeline.history import records, report_page
from pipeline.local import lock, outcome, overlap, recovery, runner, unchanged
from pipeline.local.outcome import Outcome, Tuned
from pipeline.nodes import NodeId, Output
from pipeline.previous_data import with_previous_data

T = TypeVar("T")


def run(
    config: PipelineConfig,
    observer: runner.Observer,
    run_id: str,
    rerun: Collection[str] = (),
    may_fork: bool = False,
) -> Outcome:
    """Run the pipeline; what goes wrong in it is part of the outcome, with the details in the log.

    Args:
        config: what to run.
        observer: is told about each node.
        run_id: recorded in ML Metadata.
        rerun: nodes that execute even where their results are cached.
        may_fork: TensorFlow has done nothing in this process but be imported, so that ServingValidator's
            server may come from a fork.
    """
    with standby.process() if may_fork else contextlib.nullcontext():
        return _run(config, observer, run_id, rerun)


def _run(config: PipelineConfig, observer: runner.Observer, run_id: str, rerun: Collection[str]) -> Outcome:
    config = with_previous_data(config)
    pipeline = definition.create_pipeline(config)

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
        runner.run(pipeline, observer, run_id, parallel=nodes, rerun=rerun)
        unchanged.remember(config, run_id)
        ended = records.History(config).find(run_id)
        return replace(outcome.of_run(ended), report=report_page.write(config, ended))

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
        return failed(error=outcome.unexpected(error))


def clean_up_and_exit(config: PipelineConfig) -> None:
    """Clean up after an interrupted run; does not return."""
    recovery.clean_up_in_new_process(config)


def _only_output(
    pipeline: Pipeline, nodes: Mapping[str, runner.NodeRun], node: str, key: str
) -> metadata_store_pb2.Artifact:
    execution_id = nodes[node].execution_id
    assert execution_id is not None
    (artifact,) = runner.output_artifacts(pipeline, execution_id, key)
    return artifact


def _best(config: PipelineConfig, pipeline: Pipeline, nodes: dict[str, runner.NodeRun]) -> Tuned:
    """The best trial, from the files that TFX's Tuner writes, as a recipe."""
    only_output = functools.partial(_only_output, pipeline, nodes)
    best = Path(only_output(NodeId.TUNER, Output.BEST_HYPERPARAMETERS).uri, "best_hyperparameters.txt")
    results = Path(only_output(NodeId.TUNER, Output.TUNER_RESULTS).uri, "tuner_results.json")
    trials = json.loads(results.read_text())
    return Tuned(
        recipe={"recipe": config.trainer.recipe}
        | config.trainer.overrides()
        | json.loads(best.read_text())["values"],
        accuracy=max(trial["score"] for trial in trials),
        trials=len(trials),
    )
