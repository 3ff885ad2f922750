"""Requests of all connections, joined into batches; a few run at a time.

The threads of the transports do the work themselves: one that finds a free place runs whatever is waiting,
its own request among it, and passes its place to one of those that wait. So a lone request is run at once,
without a change of threads, and under load batches grow by themselves: nobody waits for company unless
`batch_timeout_micros` says so.

Requests of a model are joined only where its rows do not depend on each other: where the model says so
itself, or where the operator of the server asks for it, as with TF Serving's --enable_batching.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from serving.models.batching_parameters import ALONE, BatchingParameters, Join
from serving.models.servable import Servable
from serving.protocol.errors import Code, ServingError, invalid
from serving.protocol.signatures import Signature

Result = list[np.ndarray] | ServingError
# Called with model name, batch size in examples, and seconds in TensorFlow.
Observer = Callable[[str, int, float], None]


@dataclass(frozen=True)
class Caller:
    """Who waits for an answer."""

    deadline: float | None = None  # by time.monotonic()
    is_there: Callable[[], bool] = lambda: True


@dataclass(eq=False)
class Task:
    """A request that waits to be run; the batcher's lock guards what changes."""

    caller: Caller
    servable: Servable
    signature: Signature
    outputs: tuple[str, ...]
    values: Sequence[np.ndarray]
    size: int  # examples; 1 where they cannot be counted
    parameters: BatchingParameters  # ALONE where it must not be joined
    since: float  # time.monotonic()
    wake: threading.Event = field(default_factory=threading.Event)
    is_taken: bool = False  # is in a batch, and no longer in a queue
    has_place: bool = False  # its thread was given a place, and has to run a batch
    result: Result | None = None

    def error_if_abandoned(self) -> ServingError | None:
        """Why nobody waits for the answer any more, if so."""
        deadline = self.caller.deadline
        if deadline is not None and time.monotonic() > deadline:
            return deadline_exceeded()
        return None if self.caller.is_there() else ServingError(Code.CANCELLED, "the client has gone")

    @property
    def group(self) -> _Group:
        """Those that it may be joined to."""
        return _Group(self.servable, self.signature.name, self.parameters is not ALONE)

    def joins(self, other: Task) -> bool:
        """Whether both fit into one batch."""
        padded = self.parameters.pad_variable_length_inputs
        return self.outputs == other.outputs and all(
            mine.dtype == theirs.dtype
            and (mine.ndim == theirs.ndim if padded else mine.shape[1:] == theirs.shape[1:])
            for mine, theirs in zip(self.values, other.values, strict=True)
        )


class _Group(NamedTuple):
    """What may be joined at all, or must not be."""

    servable: Servable
    signature_name: str
    joined: bool


class _Queue:
    """The tasks of one group, in their order, and how many examples they hold together."""

    def __init__(self, parameters: BatchingParameters) -> None:
        self.parameters = parameters
        self.tasks: deque[Task] = deque()
        self.size = 0

    def append(self, task: Task) -> None:
        self.tasks.append(task)
        self.size += task.size

    def popleft(self) -> Task:
        task = self.tasks.popleft()
        self.size -= task.size
        return task

    def remove(self, task: Task) -> None:
        self.tasks.remove(task)
        self.size -= task.size


class Batcher:
    """The queues, and the places at which batches are run."""

    def __init__(self, parameters: BatchingParameters, observe: Observer, per_model: bool = False) -> None:
        """Begin with empty queues.

        Args:
            parameters: how requests are joined.
            observe: called after each run, from the thread that ran it.
            per_model: take a model's own parameters (Servable.batching) for those given here, but for the
                threads; a model without any is not joined.
        """
        self._parameters = parameters
        self._per_model = per_model
        self._observe = observe
        self._lock = threading.Lock()
        self._grown = threading.Condition(self._lock)
        self._groups: OrderedDict[_Group, _Queue] = OrderedDict()
        self._free_places = parameters.num_batch_threads

    def run(
        self,
        caller: Caller,
        servable: Servable,
        signature: Signature,
        outputs: tuple[str, ...],
        values: Sequence[np.ndarray],
    ) -> list[np.ndarray]:
        """Run a request, joined with others; blocks.

        Args:
            caller: who waits, and until when.
            servable: held by the caller until this returns.
            signature: one of the servable's.
            outputs: the aliases to fetch.
            values: checked inputs, in the signature's order.

        Returns:
            The outputs, in the order of `outputs`.

        Raises:
            ServingError: INVALID_ARGUMENT for too many examples, RESOURCE_EXHAUSTED when too much waits
                already, DEADLINE_EXCEEDED, and whatever TensorFlow says.
        """
        rows = _rows(values)
        parameters = self._parameters_for(servable, signature) if rows else ALONE
        if rows and parameters.join is Join.ALL:
            if parameters.enable_large_batch_splitting and rows > parameters.part_size:
                return self._run_in_parts(caller, servable, signature, outputs, values, parameters)
            if rows > parameters.max_batch_size:
                raise invalid(
                    f"Task size {rows} is larger than maximum input batch size {parameters.max_batch_size}"
                )
        elif rows and rows > parameters.max_batch_size:
            parameters = ALONE
        return self._run_task(
            Task(caller, servable, signature, outputs, values, rows or 1, parameters, time.monotonic())
        )

    def _parameters_for(self, servable: Servable, signature: Signature) -> BatchingParameters:
        parameters = self._parameters
        if self._per_model:
            parameters = servable.batching or ALONE
        is_joined = parameters.join is Join.ALL or (
            parameters.join is Join.MARKED and signature.name in servable.independent
        )
        return parameters if is_joined and signature.name not in servable.indivisible else ALONE

    def _run_in_parts(
        self,
        caller: Caller,
        servable: Servable,
        signature: Signature,
        outputs: tuple[str, ...],
        values: Sequence[np.ndarray],
        parameters: BatchingParameters,
    ) -> list[np.ndarray]:
        """One part after the other; each may be joined with other requests."""
        size = parameters.part_size
        answers = []
        for start in range(0, len(values[0]), size):
            part = [value[start : start + size] for value in values]
            now = time.monotonic()
            answers.append(
                self._run_task(
                    Task(caller, servable, signature, outputs, part, len(part[0]), parameters, now)
                )
            )
        return [np.concatenate(column) for column in zip(*answers, strict=True)]

    def _run_task(self, task: Task) -> list[np.ndarray]:
        with self._lock:
            self._enqueue(task)
            if self._free_places:
                self._free_places -= 1
                task.has_place = True
        try:
            while task.result is None:
                if task.has_place:
                    self._lead(task)
                else:
                    self._wait(task)
        finally:
            # It may have been given a place and an answer at once, or it has run out of time.
            if task.has_place or not task.is_taken:
                self._leave(task)
        if isinstance(task.result, ServingError):
            raise task.result
        return task.result

    def _enqueue(self, task: Task) -> None:
        """Under the lock."""
        parameters = task.parameters
        queue = self._groups.setdefault(task.group, _Queue(parameters))
        limit = parameters.max_batch_size * parameters.max_enqueued_batches
        if parameters is not ALONE and queue.size + task.size > limit:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                "The batch scheduling queue to which this task was submitted is full",
            )
        queue.append(task)
        self._grown.notify_all()

    def _wait(self, task: Task) -> None:
        """Sleep until there is a result, or a place for this thread.

        Raises:
            ServingError: DEADLINE_EXCEEDED.
        """
        deadline = task.caller.deadline
        timeout = None if deadline is None else max(deadline - time.monotonic(), 0)
        if not task.wake.wait(timeout):
            raise deadline_exceeded()
        task.wake.clear()

    def _leave(self, task: Task) -> None:
        """Leave the queue, and leave the place to others."""
        with self._lock:
            if not task.is_taken:
                group = task.group
                queue = self._groups[group]
                queue.remove(task)
                if not queue.tasks:
                    del self._groups[group]
            if task.has_place:
                self._pass_on(task)

    def _lead(self, own: Task) -> None:
        """Run batches until the own task is in one, then pass the place on."""
        while not own.is_taken:
            with self._lock:
                batch = self._next_batch(own)
            if not batch:
                break
            results = self._run(batch)
            batch[0].servable.release()
            with self._lock:
                for task, result in zip(batch, results, strict=True):
                    task.result = result
                if own.is_taken:
                    self._pass_on(own)
            for task in batch:
                task.wake.set()
        with self._lock:
            if own.has_place:  # another thread took the own task
                self._pass_on(own)

    def _pass_on(self, own: Task) -> None:
        """Under the lock: give the place to the first that waits, or leave it free."""
        own.has_place = False
        for queue in self._groups.values():
            for task in queue.tasks:
                if not task.has_place:
                    task.has_place = True
                    task.wake.set()
                    return
        self._free_places += 1

    def _next_batch(self, own: Task) -> list[Task]:
        """Under the lock: take what is due; nothing when another thread took the own task meanwhile."""
        while not own.is_taken:
            now = time.monotonic()
            soonest = float("inf")
            for group, queue in self._groups.items():
                due = queue.tasks[0].since + queue.parameters.batch_timeout_micros / 1e6
                if due <= now or queue.size >= queue.parameters.part_size:
                    return self._take(group, queue)
                soonest = min(soonest, due)
            self._grown.wait(soonest - now)
        return []

    def _take(self, group: _Group, queue: _Queue) -> list[Task]:
        """Under the lock: the first task, and those behind it that can be joined to it."""
        first = queue.popleft()
        tasks, size = [first], first.size
        joinable = group.joined and first.signature.name not in first.servable.indivisible
        while joinable and queue.tasks and size + queue.tasks[0].size <= queue.parameters.part_size:
            if not first.joins(queue.tasks[0]):
                break
            tasks.append(queue.popleft())
            size += tasks[-1].size
        for task in tasks:
            task.is_taken = True
        # Every task's thread holds the servable, but may give up while the batch runs.
        first.servable.hold()
        # Others first, the next time.
        del self._groups[group]
        if queue.tasks:
            self._groups[group] = queue
        return tasks

    def _run(self, tasks: list[Task]) -> list[Result]:
        """A result for each task; one that fails does not take the others with it."""
        results: dict[Task, Result] = {}
        for task in tasks:
            if error := task.error_if_abandoned():
                results[task] = error
        live = [task for task in tasks if task not in results]
        if len(live) > 1:
            results |= self._run_joined(live)
        for task in live:
            if task not in results:
                results[task] = self._run_one(task)
        return [results[task] for task in tasks]

    def _run_one(self, task: Task) -> Result:
        try:
            return self._timed(task, task.values, task.size)
        except ServingError as error:
            return error
        except Exception as error:  # a fault of ours must reach the client, and leave the place usable
            return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")

    def _run_joined(self, tasks: list[Task]) -> dict[Task, Result]:
        """The tasks in one run; empty when they have to be run one by one."""
        first, total = tasks[0], sum(task.size for task in tasks)
        try:
            columns = zip(*(task.values for task in tasks), strict=True)
            values = [
                np.concatenate(_padded(column) if first.parameters.pad_variable_length_inputs else column)
                for column in columns
            ]
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
        sizes = task.parameters.allowed_batch_sizes
        padding = next((allowed for allowed in sizes if allowed >= size), size) - size
        if padding:
            values = [np.concatenate([value, np.repeat(value[:1], padding, 0)]) for value in values]
        start = time.perf_counter()
        outputs = task.servable.run(task.signature, task.outputs, values)
        self._observe(task.servable.name, size, time.perf_counter() - start)
        if padding and all(output.ndim and len(output) == size + padding for output in outputs):
            return [output[:size] for output in outputs]
        return outputs


def _rows(values: Sequence[np.ndarray]) -> int:
    """How many examples these are; 0 where that cannot be said: such a request is run as it is."""
    if not values or any(value.ndim == 0 for value in values):
        return 0
    sizes = {len(value) for value in values}
    return sizes.pop() if len(sizes) == 1 else 0


def _padded(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Arrays of one rank, filled up to the longest with their first value; their first dimension stays."""
    shape = np.max([value.shape[1:] for value in values], axis=0)
    return [
        np.pad(
            value,
            [(0, 0), *((0, size - given) for size, given in zip(shape, value.shape[1:], strict=True))],
            constant_values=value.flat[0],
        )
        if value.shape[1:] != tuple(shape) and value.size
        else value
        for value in values
    ]


def deadline_exceeded() -> ServingError:
    """The answer to who has no time left."""
    return ServingError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
