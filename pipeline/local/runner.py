"""Runs the pipeline on this machine with BeamDagRunner, and tells an observer node by node."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from apache_beam.options.pipeline_options import StandardOptions
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration.beam.beam_dag_runner import BeamDagRunner, PipelineNodeAsDoFn
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from pipeline.history.records import node_state
from pipeline.local import gpu_process, interruption, lock, production, recovery
from pipeline.local.overlap import MetadataInTurn, ParallelNodes
from pipeline.nodes import NodeId, NodeState, Output
from pipeline.runtime import beam_memo, gpus, job_servers, memory

PROGRESS_LOGGER = "trainer.progress"


class NodeError(Exception):
    """A node failed; the text is the node's own message."""

    def __init__(self, node: str, message: str) -> None:
        super().__init__(message)
        self.node = node


class Observer(Protocol):
    """Is told what happens while a pipeline runs; called from the thread of the node."""

    def planned(self, nodes: list[str]) -> None:
        """The nodes of this run, in order."""

    def started(self, node: str) -> None:
        """A node begins."""

    def progressed(self, progress: dict[str, Any]) -> None:
        """The Trainer has come further: step, steps, loss, metrics, images_per_s."""

    def finished(self, node: str, state: NodeState, seconds: float) -> None:
        """A node ended in one of the final states."""


@dataclass(frozen=True)
class NodeRun:
    """What one node did in a run."""

    state: NodeState
    seconds: float
    execution_id: int | None


@dataclass
class _Run:
    """The run in progress. Beam pickles its DoFns, so they find it here and carry nothing of it."""

    observer: Observer
    trainer_in_new_process: bool
    parallel: ParallelNodes
    rerun: Collection[str]
    nodes: dict[str, NodeRun] = field(default_factory=dict)
    error: NodeError | KeyboardInterrupt | None = None


_current: _Run | None = None


def run(
    pipeline: Pipeline,
    observer: Observer,
    run_id: str,
    trainer_in_new_process: bool | None = None,
    parallel: Collection[str] = (),
    rerun: Collection[str] = (),
) -> dict[str, NodeRun]:
    """Run every node whose result is not cached.

    Args:
        pipeline: what to run.
        observer: is told about each node.
        run_id: recorded in ML Metadata.
        trainer_in_new_process: give Trainer and Tuner a process of their own, the only one that sees the
            GPUs; None means: when there are GPUs.
        parallel: nodes that run in parallel with those after them: see `pipeline.local.overlap`.
        rerun: nodes that execute even where their results are cached; those after them follow.

    Returns:
        What each node did, by node id.

    Raises:
        NodeError: a node failed. The nodes before it are cached for the next run.
        KeyboardInterrupt: the run was interrupted; see `recovery`.
        lock.BusyError: the pipeline is being run by another process.
    """
    global _current
    if trainer_in_new_process is None:
        trainer_in_new_process = gpus.present()
    info = pipeline.pipeline_info
    root = Path(info.pipeline_root)
    with lock.exclusive(root):
        for execution_id in recovery.clean_up(
            pipeline.metadata_connection_config, info.pipeline_name, root
        ):
            logging.warning("execution %d of an earlier run was interrupted: cleaned up", execution_id)
        for folder in recovery.forget_lost(pipeline.metadata_connection_config, info.pipeline_name, root):
            logging.warning("%s was deleted, in part or with what was pushed: it is made again", folder)
        observer.planned([component.id for component in pipeline.components])
        _current = _Run(observer, trainer_in_new_process, ParallelNodes(parallel), rerun)
        with (
            _progress_to(observer),
            gpus.hidden(trainer_in_new_process),
            beam_in_this_process(),
            job_servers.shared(),
        ):
            try:
                _Runner(run_id).run(pipeline)
                _current.parallel.finish()
            except Exception:
                # Beam wraps what a node raises, an interruption too.
                if _current.error is None:
                    raise
                if isinstance(_current.error, NodeError):
                    with suppress(Exception):  # the first error is the one to tell
                        _current.parallel.finish()
                raise _current.error from None
        return _current.nodes


def output_artifacts(pipeline: Pipeline, execution_id: int, key: str) -> list[metadata_store_pb2.Artifact]:
    """The artifacts that an execution wrote, or took from the cache, under an output key."""
    with metadata.Metadata(pipeline.metadata_connection_config) as handle:
        outputs = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.INTERNAL_OUTPUT)
        ids = [
            event.artifact_id
            for event in handle.store.get_events_by_execution_ids([execution_id])
            if event.type in outputs and event.path.steps[0].key == key
        ]
        return list(handle.store.get_artifacts_by_id(ids))


@contextmanager
def beam_in_this_process() -> Iterator[None]:
    """FnApiRunner is the default of every Beam pipeline meanwhile, that of BeamDagRunner itself included.

    Beam's own default first downloads a Go binary; BeamDagRunner takes no option for its runner.
    """
    before = StandardOptions.DEFAULT_RUNNER
    StandardOptions.DEFAULT_RUNNER = "FnApiRunner"
    try:
        with beam_memo.remembering():
            yield
    finally:
        StandardOptions.DEFAULT_RUNNER = before


@contextmanager
def _progress_to(observer: Observer) -> Iterator[None]:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            observer.progressed(record.__dict__.get("progress", {}))

    logger, handler = logging.getLogger(PROGRESS_LOGGER), Handler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Node(PipelineNodeAsDoFn):
    """A node of the DAG that reports when it begins and how it ends."""

    def _run_node(self) -> None:
        assert _current is not None
        _current.parallel.run(self._node_id, self._observed)

    def _observed(self) -> None:
        run = _current
        assert run is not None
        run.observer.started(self._node_id)
        begin = time.monotonic()
        state, execution_id = NodeState.FAILED, None
        try:
            if self._node_id == NodeId.BASELINE_MODEL and self._outdated(run):
                self._pipeline_node.execution_options.caching_options.enable_cache = False
            if self._node_id in (NodeId.TRAINER, NodeId.TUNER) and run.trainer_in_new_process:
                execution_id = gpu_process.in_new_process(self.launch)
            else:
                execution_id = self.launch()
            state = self._state_of(execution_id)
            if state == NodeState.FAILED:
                raise RuntimeError("its inputs could not be found in ML Metadata")
        except (Exception, KeyboardInterrupt) as error:
            # C code that is called back turns an interruption into an error of its own.
            if isinstance(error, KeyboardInterrupt) or interruption.pending():
                interruption.acknowledge()
                state, run.error = NodeState.INTERRUPTED, KeyboardInterrupt()
            else:
                logging.exception("node %s failed", self._node_id)
                run.error = run.error or NodeError(self._node_id, str(error) or type(error).__name__)
            raise
        finally:
            seconds = time.monotonic() - begin
            run.nodes[self._node_id] = NodeRun(state, seconds, execution_id)
            run.observer.finished(self._node_id, state, seconds)
            memory.give_back()

    def _outdated(self, run: _Run) -> bool:
        """Whether the cached answer of BaselineModel is about another version than is in production now."""
        parameters = self._pipeline_node.parameters.parameters
        if "base_directory" not in parameters:  # an importer in its place: a given baseline
            return False
        base = parameters["base_directory"].field_value.string_value
        trainer = run.nodes[NodeId.TRAINER].execution_id
        with MetadataInTurn(self._mlmd_connection_config) as handle:
            (model,) = (
                event.artifact_id
                for event in handle.store.get_events_by_execution_ids([trainer])
                if event.type == metadata_store_pb2.Event.OUTPUT and event.path.steps[0].key == Output.MODEL
            )
            return production.outdated(handle.store, model, base)

    def launch(self) -> int | None:
        """Drive, execute and publish the node; returns the execution's id, None when it was skipped."""
        info = launcher.Launcher(
            pipeline_node=self._pipeline_node,
            mlmd_connection=MetadataInTurn(self._mlmd_connection_config),
            pipeline_info=self._pipeline_info,
            pipeline_runtime_spec=self._pipeline_runtime_spec,
            executor_spec=self._executor_spec,
            platform_config=self._extract_platform_config(self._deployment_config, self._node_id),
            custom_driver_spec=self._custom_driver_spec,
        ).launch()
        return info.execution_id if info else None

    def _state_of(self, execution_id: int | None) -> NodeState:
        if execution_id is None:
            return NodeState.SKIPPED
        with MetadataInTurn(self._mlmd_connection_config) as handle:
            (execution,) = handle.store.get_executions_by_id([execution_id])
        return node_state(execution.last_known_state)


class _Runner(BeamDagRunner):
    """BeamDagRunner with observed nodes and a run id that is known before it starts."""

    _PIPELINE_NODE_DO_FN_CLS = _Node

    def __new__(cls, run_id: str) -> _Runner:  # noqa: ARG004
        return super().__new__(cls)

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self._run_id = run_id

    def run_with_ir(
        self, pipeline: pipeline_pb2.Pipeline, run_options: pipeline_pb2.RunOptions | None = None
    ) -> None:
        """Run the compiled pipeline under the given id."""
        assert _current is not None
        _current.parallel.arrange(pipeline.nodes)
        for node in pipeline.nodes:
            if node.pipeline_node.node_info.id in _current.rerun:
                node.pipeline_node.execution_options.caching_options.enable_cache = False
        runtime_parameter_utils.substitute_runtime_parameter(
            pipeline, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: self._run_id}
        )
        super().run_with_ir(pipeline, run_options)
