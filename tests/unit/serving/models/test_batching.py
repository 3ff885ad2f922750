"""Requests of many threads become few runs, and each gets its own answer or its own error."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from serving.models.batching import Batcher, Caller
from serving.models.batching_parameters import BatchingParameters, Join
from serving.models.servable import Servable
from serving.protocol.errors import Code, ServingError
from tests.unit.serving import half_plus_two

CLIENTS = 16


@pytest.fixture(scope="module")
def servable(half_plus_two_dir: Path) -> Iterator[Servable]:
    servable = Servable("m", 1, half_plus_two_dir / half_plus_two.NAME / "00000001")
    yield servable
    servable.retire()


@dataclass
class Runs:
    """Sees the runs, and can hold one up so that requests pile up behind it."""

    sizes: list[int] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    def __call__(self, name: str, size: int, seconds: float) -> None:
        assert name == "m"
        assert seconds > 0
        self.sizes.append(size)
        assert self.go_on.wait(30)


def predict(
    batcher: Batcher, servable: Servable, x: list[float], caller: Caller | None = None
) -> list[float]:
    signature = servable.signatures["serving_default"]
    values = signature.checked_inputs({"x": np.array(x, np.float32)})
    y = batcher.run(caller or Caller(), servable, signature, ("y",), [values["x"]])[0]
    return [float(value) for value in y]


def wait_until_queued(batcher: Batcher, examples: int) -> None:
    ends_at = time.monotonic() + 30
    while sum(queue.size for queue in batcher._groups.values()) < examples:
        assert time.monotonic() < ends_at
        time.sleep(0.005)


@pytest.mark.slow
def test_requests_that_wait_are_joined(servable: Servable) -> None:
    runs = Runs()
    batcher = Batcher(BatchingParameters(Join.ALL, num_batch_threads=1), runs)
    with ThreadPoolExecutor(CLIENTS) as threads:
        first = threads.submit(predict, batcher, servable, [0.0])
        while not runs.sizes:
            time.sleep(0.005)
        rest = [threads.submit(predict, batcher, servable, [float(i), i + 0.5]) for i in range(1, CLIENTS)]
        wait_until_queued(batcher, 2 * (CLIENTS - 1))
        runs.go_on.set()
        assert first.result(30) == [2.0]
        assert [each.result(30) for each in rest] == [[i / 2 + 2, i / 2 + 2.25] for i in range(1, CLIENTS)]
    assert runs.sizes == [1, 2 * (CLIENTS - 1)]


@pytest.mark.slow
def test_without_batching_each_runs_alone(servable: Servable) -> None:
    runs = Runs()
    runs.go_on.set()
    batcher = Batcher(BatchingParameters(Join.NONE, num_batch_threads=1), runs)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda i: predict(batcher, servable, [i]), range(8))) == [
            [i / 2 + 2] for i in range(8)
        ]
    assert runs.sizes == [1] * 8


def share(batcher: Batcher, servable: Servable, x: list[float]) -> list[float]:
    """Rows that depend on each other: x / sum(x)."""
    signature = servable.signatures["share"]
    return [
        float(y) for y in batcher.run(Caller(), servable, signature, ("y",), [np.array(x, np.float32)])[0]
    ]


def test_rows_that_depend_on_each_other_are_not_joined_by_default(servable: Servable) -> None:
    runs = Runs()
    batcher = Batcher(BatchingParameters(num_batch_threads=1), runs)
    with ThreadPoolExecutor(CLIENTS) as threads:
        first = threads.submit(share, batcher, servable, [1.0, 3.0])
        while not runs.sizes:
            time.sleep(0.005)
        rest = [threads.submit(share, batcher, servable, [1.0, 3.0]) for _ in range(CLIENTS - 1)]
        wait_until_queued(batcher, 2 * (CLIENTS - 1))
        runs.go_on.set()
        assert [each.result(30) for each in (first, *rest)] == [[0.25, 0.75]] * CLIENTS
    assert runs.sizes == [2] * CLIENTS


def test_a_model_that_says_that_its_rows_are_independent_is_joined_by_default(servable: Servable) -> None:
    runs = Runs()
    batcher = Batcher(BatchingParameters(num_batch_threads=1), runs)
    servable.independent = frozenset({"serving_default"})
    try:
        with ThreadPoolExecutor(CLIENTS) as threads:
            first = threads.submit(predict, batcher, servable, [0.0])
            while not runs.sizes:
                time.sleep(0.005)
            rest = [threads.submit(predict, batcher, servable, [float(i)]) for i in range(1, CLIENTS)]
            wait_until_queued(batcher, CLIENTS - 1)
            runs.go_on.set()
            assert [each.result(30) for each in (first, *rest)] == [[i / 2 + 2] for i in range(CLIENTS)]
        assert runs.sizes == [1, CLIENTS - 1]
        assert predict(batcher, servable, [2.0] * 3000) == [3.0] * 3000, "more than a batch: alone"
    finally:
        servable.independent = frozenset()


def test_a_model_is_joined_by_its_own_parameters(servable: Servable) -> None:
    batcher = Batcher(BatchingParameters(Join.ALL), lambda *_: None, per_model=True)
    assert predict(batcher, servable, [2.0] * 5) == [3.0] * 5
    servable.batching = BatchingParameters(Join.ALL, max_batch_size=4)
    try:
        with pytest.raises(ServingError, match="Task size 5 is larger than maximum input batch size 4"):
            predict(batcher, servable, [2.0] * 5)
    finally:
        servable.batching = None


def test_what_is_not_joined_has_any_size_and_unequal_inputs(servable: Servable) -> None:
    batcher = Batcher(BatchingParameters(), lambda *_: None)
    assert predict(batcher, servable, [2.0] * 9000) == [3.0] * 9000
    values = [np.array([1, 2], np.float32), np.array([3], np.float32)]
    unequal = servable.signatures["unequal"]
    for parameters in (BatchingParameters(), BatchingParameters(Join.ALL)):
        (outer,) = Batcher(parameters, lambda *_: None).run(Caller(), servable, unequal, ("outer",), values)
        assert outer.tolist() == [[3.0], [6.0]]


def test_a_large_request_is_run_in_parts(servable: Servable) -> None:
    runs = Runs()
    runs.go_on.set()
    parameters = BatchingParameters(
        Join.ALL, max_batch_size=8, enable_large_batch_splitting=True, max_execution_batch_size=4
    )
    x = [float(i) for i in range(10)]
    assert predict(Batcher(parameters, runs), servable, x) == [each / 2 + 2 for each in x]
    assert runs.sizes == [4, 4, 2]


def test_inputs_of_different_lengths_are_filled_up(servable: Servable) -> None:
    runs = Runs()
    parameters = BatchingParameters(Join.ALL, num_batch_threads=1, pad_variable_length_inputs=True)
    batcher = Batcher(parameters, runs)
    signature = servable.signatures["column"]

    def column(values: list[list[float]]) -> list[list[float]]:
        given = np.array(values, np.float32)
        return batcher.run(Caller(), servable, signature, ("y",), [given])[0].tolist()

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(column, [[0.0]])
        while not runs.sizes:
            time.sleep(0.005)
        short, long = threads.submit(column, [[2.0]]), threads.submit(column, [[4.0, 6.0], [8.0, 0.0]])
        wait_until_queued(batcher, 3)
        runs.go_on.set()
        assert first.result(30) == [[2.0]]
        # As in TF Serving: with the first value of the short one, and the answer stays as long.
        assert short.result(30) == [[3.0, 3.0]]
        assert long.result(30) == [[4.0, 5.0], [6.0, 2.0]]
    assert runs.sizes == [1, 3]


def test_a_batch_is_no_bigger_than_allowed(servable: Servable) -> None:
    runs = Runs()
    batcher = Batcher(
        BatchingParameters(Join.ALL, max_batch_size=4, num_batch_threads=1, max_enqueued_batches=9), runs
    )
    with ThreadPoolExecutor(CLIENTS) as threads:
        futures = [threads.submit(predict, batcher, servable, [1.0])]
        while not runs.sizes:
            time.sleep(0.005)
        futures += [threads.submit(predict, batcher, servable, [1.0] * 3) for _ in range(4)]
        wait_until_queued(batcher, 12)
        runs.go_on.set()
        assert all(set(future.result(30)) == {2.5} for future in futures)
    assert runs.sizes == [1, 3, 3, 3, 3]
    with pytest.raises(ServingError, match="Task size 5 is larger than maximum input batch size 4"):
        predict(batcher, servable, [1.0] * 5)


def test_what_does_not_fit_is_refused(servable: Servable) -> None:
    runs = Runs()
    batcher = Batcher(
        BatchingParameters(Join.ALL, max_batch_size=2, num_batch_threads=1, max_enqueued_batches=1), runs
    )
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(predict, batcher, servable, [0.0])
        while not runs.sizes:
            time.sleep(0.005)
        second = threads.submit(predict, batcher, servable, [1.0, 2.0])
        wait_until_queued(batcher, 2)
        with pytest.raises(ServingError) as caught:
            predict(batcher, servable, [3.0])
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        runs.go_on.set()
        assert (first.result(30), second.result(30)) == ([2.0], [2.5, 3.0])
    runs.go_on.set()
    assert predict(batcher, servable, [2.0]) == [3.0]


def test_whoever_has_no_time_left_goes(servable: Servable) -> None:
    runs = Runs()
    batcher = Batcher(BatchingParameters(Join.ALL, num_batch_threads=1), runs)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(predict, batcher, servable, [0.0])
        while not runs.sizes:
            time.sleep(0.005)
        with pytest.raises(ServingError) as caught:
            predict(batcher, servable, [1.0], Caller(time.monotonic() + 0.05))
        assert caught.value.code is Code.DEADLINE_EXCEEDED
        gone = threads.submit(predict, batcher, servable, [1.0], Caller(is_there=lambda: False))
        wait_until_queued(batcher, 1)
        runs.go_on.set()
        assert first.result(30) == [2.0]
        with pytest.raises(ServingError, match="the client has gone"):
            gone.result(30)
    assert runs.sizes == [1]
    # And the place that they had is free again.
    assert predict(batcher, servable, [2.0]) == [3.0]


def test_one_bad_request_fails_alone(servable: Servable) -> None:
    runs = Runs()
    batcher = Batcher(BatchingParameters(Join.ALL, num_batch_threads=1), runs)
    signature = servable.signatures["regress_x_to_y"]

    def regress(example: bytes) -> float:
        values = np.empty(1, object)
        values[0] = example
        return float(batcher.run(Caller(), servable, signature, ("outputs",), [values])[0][0, 0])

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(regress, b"")
        while not runs.sizes:
            time.sleep(0.005)
        good, bad = threads.submit(regress, b""), threads.submit(regress, b"\xff")
        wait_until_queued(batcher, 2)
        runs.go_on.set()
        assert first.result(30) == good.result(30) == 2.0
        with pytest.raises(ServingError, match="Could not parse example"):
            bad.result(30)


def test_batches_are_filled_up_to_allowed_sizes(servable: Servable) -> None:
    runs = Runs()
    runs.go_on.set()
    parameters = BatchingParameters(Join.ALL, max_batch_size=8, allowed_batch_sizes=(4, 8))
    batcher = Batcher(parameters, runs)
    assert predict(batcher, servable, [2.0, 4.0, 6.0]) == [3.0, 4.0, 5.0]
    assert predict(batcher, servable, [2.0] * 5) == [3.0] * 5


def test_a_batch_waits_for_company_if_told_so(servable: Servable) -> None:
    runs = Runs()
    runs.go_on.set()
    parameters = BatchingParameters(
        Join.ALL, max_batch_size=4, batch_timeout_micros=10_000_000, num_batch_threads=2
    )
    batcher = Batcher(parameters, runs)
    start = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda i: predict(batcher, servable, [i]), range(4)))
    assert answers == [[2.0], [2.5], [3.0], [3.5]]
    assert time.monotonic() - start < 5  # full before the time was over
    assert runs.sizes == [4]


def test_other_shapes_and_signatures_do_not_mix(servable: Servable) -> None:
    runs = Runs()
    batcher = Batcher(BatchingParameters(Join.ALL, num_batch_threads=1), runs)
    grid, total = servable.signatures["grid"], servable.signatures["total"]

    def shapes(rows: int) -> tuple[int, ...]:
        given = np.zeros((rows, 2, 3), np.int32)
        return batcher.run(Caller(), servable, grid, ("transposed",), [given])[0].shape

    def sums(values: list[float]) -> float:
        given = np.array(values, np.float32)
        return float(batcher.run(Caller(), servable, total, ("total",), [given])[0])

    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(predict, batcher, servable, [0.0])
        while not runs.sizes:
            time.sleep(0.005)
        a, b = threads.submit(shapes, 1), threads.submit(shapes, 3)
        c, d = threads.submit(sums, [1.0, 2.0]), threads.submit(sums, [5.0])
        wait_until_queued(batcher, 6)
        runs.go_on.set()
        assert first.result(30) == [2.0]
        assert (a.result(30), b.result(30)) == ((1, 3, 2), (3, 3, 2))
        assert (c.result(30), d.result(30)) == (3.0, 5.0)
    # The sums were found to be no rows, and run again one by one.
    assert sorted(runs.sizes) == [1, 1, 2, 3, 4]


@pytest.mark.slow
def test_many_threads_for_a_while(servable: Servable) -> None:
    """Nobody gets another's answer, nobody waits for ever, whatever the order."""
    runs = Runs()
    runs.go_on.set()
    batcher = Batcher(BatchingParameters(Join.ALL, max_batch_size=8, num_batch_threads=2), runs)
    lost: list[int] = []

    def client(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(100):
            x = random.normal(size=int(random.integers(1, 5))).astype(np.float32)
            caller = Caller(time.monotonic() + 0.0005) if random.random() < 0.1 else Caller()
            try:
                y = predict(batcher, servable, x.tolist(), caller)
            except ServingError as error:
                if error.code not in (Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED):
                    lost.append(seed)
                continue
            if not np.allclose(y, x / 2 + 2):
                lost.append(seed)

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(client, range(CLIENTS)))
    assert not lost
    assert batcher._free_places == 2
    assert not batcher._groups
