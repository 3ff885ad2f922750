"""Requests of all connections, joined into batches for a few inference threads.

A thread that becomes free takes everything that is waiting for one signature, and nobody waits for company
unless `batch_timeout_micros` says so: alone, a request goes straight through; under load, batches grow by
themselves.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from serving.errors import Code, ServingError, invalid
from serving.servable import Servable
from serving.signatures import Signature

Result = list[np.ndarray] | ServingError
# Called with model name, batch size in examples, and seconds in TensorFlow.
Observer = Callable[[str, int, float], None]


@dataclass(frozen=True)
class BatchingParameters:
    """How requests are joined; names and meanings are those of TF Serving's BatchingParameters."""

    enabled: bool = True
    max_batch_size: int = 1024  # examples in a batch, and in a single request
    batch_timeout_micros: int = 0  # how long a batch that is not full waits for more
    max_enqueued_batches: int = 4  # full batches that may wait for a signature; more is refused
    num_batch_threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: tuple[int, ...] = ()  # batches are filled up to one of these


@dataclass(eq=False)
class Task:
    """A request that waits for a thread."""

    servable: Servable
    signature: Signature
    outputs: tuple[str, ...]
    values: Sequence[np.ndarray]
    size: int  # examples
    future: asyncio.Future[list[np.ndarray]]
    loop: asyncio.AbstractEventLoop
    since: float  # time.monotonic()

    def joins(self, other: Task) -> bool:
        """Whether both fit into one batch."""
        return self.outputs == other.outputs and all(
            mine.shape[1:] == theirs.shape[1:]
            for mine, theirs in zip(self.values, other.values, strict=True)
        )


class _Group(NamedTuple):
    """What may be joined at all."""

    servable: Servable
    signature_name: str


class _Queue:
    """The tasks of one group, in their order, and how many examples they hold together."""

    def __init__(self) -> None:
        self.tasks: deque[Task] = deque()
        self.size = 0

    def append(self, task: Task) -> None:
        self.tasks.append(task)
        self.size += task.size

    def popleft(self) -> Task:
        task = self.tasks.popleft()
        self.size -= task.size
        return task


class Batcher:
    """The queues and their threads."""

    def __init__(self, parameters: BatchingParameters, observe: Observer) -> None:
        """Start the threads.

        Args:
            parameters: how requests are joined.
            observe: called after each run, from the threads.
        """
        self._parameters = parameters
        self._observe = observe
        self._wake = threading.Condition()
        self._groups: OrderedDict[_Group, _Queue] = OrderedDict()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"inference-{index}", daemon=True)
            for index in range(parameters.num_batch_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self,
        servable: Servable,
        signature: Signature,
        outputs: tuple[str, ...],
        values: Sequence[np.ndarray],
    ) -> asyncio.Future[list[np.ndarray]]:
        """Queue a request; called on the event loop.

        Args:
            servable: held by the caller.
            signature: one of the servable's.
            outputs: the aliases to fetch.
            values: checked inputs, in the signature's order.

        Returns:
            A future of the outputs. When it is cancelled before a thread took it, it is never run.

        Raises:
            ServingError: INVALID_ARGUMENT for too many examples, RESOURCE_EXHAUSTED when too much waits
                already, UNAVAILABLE when the version is going or the server is shutting down.
        """
        parameters = self._parameters
        size = len(values[0]) if signature.batched else 1
        if size > parameters.max_batch_size:
            raise invalid(
                f"Task size {size} is larger than maximum input batch size {parameters.max_batch_size}"
            )
        loop = asyncio.get_running_loop()
        task = Task(
            servable, signature, outputs, values, size, loop.create_future(), loop, time.monotonic()
        )
        group = _Group(servable, signature.name)
        with self._wake:
            if self._closed or not servable.acquire():
                raise ServingError(Code.UNAVAILABLE, "the server is shutting down")
            queue = self._groups.setdefault(group, _Queue())
            if queue.size + size > parameters.max_batch_size * parameters.max_enqueued_batches:
                servable.release()
                raise ServingError(
                    Code.RESOURCE_EXHAUSTED,
                    "The batch scheduling queue to which this task was submitted is full",
                )
            queue.append(task)
            self._wake.notify()
        return task.future

    def close(self) -> None:
        """Finish what is queued and end the threads."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._wake:
                tasks = self._next_batch()
            if tasks is None:
                return
            results = self._run(tasks)
            for task in tasks:
                task.servable.release()
            _resolve(tasks, results)

    def _next_batch(self) -> list[Task] | None:
        """Wait for work and take it, under the lock; None when there will be none."""
        timeout_s = self._parameters.batch_timeout_micros / 1e6
        while True:
            soonest = None
            now = time.monotonic()
            for group, queue in self._groups.items():
                due = queue.tasks[0].since + timeout_s
                full = queue.size >= self._parameters.max_batch_size
                if full or due <= now or self._closed:
                    return self._take(group, queue)
                soonest = due if soonest is None else min(soonest, due)
            if self._closed:
                return None
            self._wake.wait(None if soonest is None else soonest - now)

    def _take(self, group: _Group, queue: _Queue) -> list[Task]:
        """The first task, and those behind it that can be joined to it."""
        first = queue.popleft()
        tasks, size = [first], first.size
        joinable = (
            self._parameters.enabled
            and first.signature.batched
            and first.signature.name not in first.servable.indivisible
        )
        while joinable and queue.tasks and size + queue.tasks[0].size <= self._parameters.max_batch_size:
            if not first.joins(queue.tasks[0]):
                break
            task = queue.popleft()
            tasks.append(task)
            size += task.size
        # Others first, the next time.
        del self._groups[group]
        if queue.tasks:
            self._groups[group] = queue
        return tasks

    def _run(self, tasks: list[Task]) -> list[Result]:
        """A result for each task; one that fails does not take the others with it."""
        live = [task for task in tasks if not task.future.cancelled()]
        results: dict[Task, Result] = {}
        if len(live) > 1:
            results = self._run_joined(live)
        for task in live:
            if task not in results:
                results[task] = self._run_one(task)
        gone = ServingError(Code.CANCELLED, "the client has gone")
        return [results.get(task, gone) for task in tasks]

    def _run_one(self, task: Task) -> Result:
        try:
            return self._timed(task, task.values, task.size)
        except ServingError as error:
            return error
        except Exception as error:  # a fault of ours must reach the client, and never end a thread
            return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")

    def _run_joined(self, tasks: list[Task]) -> dict[Task, Result]:
        """The tasks in one run; empty when they have to be run one by one."""
        first, total = tasks[0], sum(task.size for task in tasks)
        values = [np.concatenate(column) for column in zip(*(task.values for task in tasks), strict=True)]
        try:
            outputs = self._timed(first, values, total)
        except Exception:  # one bad example fails the batch: alone, each gets its own answer
            return {}
        if any(output.ndim == 0 or len(output) != total for output in outputs):
            first.servable.indivisible.add(first.signature.name)
            return {}
        results: dict[Task, Result] = {}
        start = 0
        for task in tasks:
            results[task] = [output[start : start + task.size] for output in outputs]
            start += task.size
        return results

    def _timed(self, task: Task, values: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
        wanted = next(
            (allowed for allowed in self._parameters.allowed_batch_sizes if allowed >= size), size
        )
        padding = wanted - size if task.signature.batched else 0
        if padding:
            values = [np.concatenate([value, np.repeat(value[:1], padding, 0)]) for value in values]
        start = time.perf_counter()
        outputs = task.servable.run(task.signature, task.outputs, values)
        self._observe(task.servable.name, size, time.perf_counter() - start)
        return [output[:size] for output in outputs] if padding else outputs


def _resolve(tasks: list[Task], results: list[Result]) -> None:
    """Hand the results to the event loops: one wake-up for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Task, Result]]] = {}
    for task, result in zip(tasks, results, strict=True):
        by_loop.setdefault(task.loop, []).append((task, result))
    for loop, pairs in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set_results, pairs)


def _set_results(pairs: list[tuple[Task, Result]]) -> None:
    for task, result in pairs:
        if task.future.done():
            continue
        if isinstance(result, ServingError):
            task.future.set_exception(result)
        else:
            task.future.set_result(result)
