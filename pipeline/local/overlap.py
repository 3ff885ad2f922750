"""Nodes that run in parallel with those after them, until one of these needs what they make."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Collection, Iterable, MutableSequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from tfx.orchestration import metadata
from tfx.proto.orchestration import pipeline_pb2

from pipeline.nodes import NodeId

# Waits for another process most of the time, so that it leaves Python to the node in the main thread.
NODES = frozenset({NodeId.SERVING_VALIDATOR})
_NEEDED_CORES = 2
_NEEDED_BYTES = 2 << 30  # a model server and an Evaluator at once


def room() -> bool:
    """Whether this machine has a core and the memory for two nodes at once."""
    return len(os.sched_getaffinity(0)) >= _NEEDED_CORES and _available_bytes() >= _NEEDED_BYTES


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


class ParallelNodes:
    """The nodes of one run that have a thread of their own."""

    def __init__(self, nodes: Collection[str]) -> None:
        self._nodes = nodes
        self._threads = ThreadPoolExecutor(thread_name_prefix="node")
        self._started: dict[str, Future[None]] = {}
        self._needs: dict[str, tuple[str, ...]] = {}

    def arrange(self, nodes: MutableSequence[pipeline_pb2.Pipeline.PipelineOrNode]) -> None:
        """Put the nodes that may run in parallel right after those that they need, and fix the order.

        TFX sorts by dependency alone, and so does Beam: where two nodes do not need each other, chance
        decides.
        """
        ordered: list[pipeline_pb2.Pipeline.PipelineOrNode] = []
        for node in nodes:
            needed = set(node.pipeline_node.upstream_nodes)
            places = [place for place, other in enumerate(ordered, 1) if _id(other) in needed]
            ordered.insert(max(places, default=0) if _id(node) in self._nodes else len(ordered), node)
        copies = [
            pipeline_pb2.Pipeline.PipelineOrNode.FromString(node.SerializeToString()) for node in ordered
        ]
        self._needs = {_id(node): tuple(node.pipeline_node.upstream_nodes) for node in copies}
        for before, node in itertools.pairwise(copies):
            if _id(before) not in self._needs[_id(node)]:
                node.pipeline_node.upstream_nodes.append(_id(before))
        del nodes[:]
        nodes.extend(copies)

    def run(self, node: str, work: Callable[[], None]) -> None:
        """Do the work of a node after its upstream nodes; return at once if it may run in parallel.

        Raises:
            Exception: what its own work raised, or that of an upstream node in another thread.
        """
        self._wait(self._needs[node])
        if node in self._nodes:
            self._started[node] = self._threads.submit(work)
        else:
            work()

    def finish(self) -> None:
        """Wait for all threads.

        Raises:
            Exception: what the work in one of them raised.
        """
        self._threads.shutdown()
        self._wait(list(self._started))

    def _wait(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            if node in self._started:
                self._started[node].result()


def _id(node: pipeline_pb2.Pipeline.PipelineOrNode) -> str:
    return str(node.pipeline_node.node_info.id)


class MetadataInTurn(metadata.Metadata):
    """ML Metadata for one node at a time: a second writer would find SQLite locked."""

    _turn = threading.RLock()

    def __enter__(self) -> MetadataInTurn:
        """Wait for the turn, then connect."""
        self._turn.acquire()
        try:
            super().__enter__()
        except BaseException:
            self._turn.release()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[Exception] | None = None,
        exc_value: Exception | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Disconnect, and let the next one in."""
        try:
            super().__exit__(exc_type, exc_value, exc_tb)
        finally:
            self._turn.release()
