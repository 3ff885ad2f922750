"""The whole cold `mnist run` against a bare Keras script of the same recipe, side by side.

    make bench            one pair
    python -m bench.run --pairs 3 --stock

With --stock a third side takes its turn: TFX's standard components as its examples use them.

Each side is a fresh process, imports included; they take turns, so that a machine that gets slower
slows both. The pipeline starts from nothing: no cache, no metadata; then it runs once more, with everything
cached.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

DATA = Path(__file__).parent.parent / "var/data/mnist"
KILOBYTE = 1024


@dataclass(frozen=True)
class Measured:
    """One process, from its start to its end."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def measure(command: list[str]) -> Measured:
    """Run a command to its end; the peak is of its resident memory.

    Raises:
        RuntimeError: when it fails, with its output.
    """
    with tempfile.TemporaryFile("w+") as output:
        begin = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{text}")
    cpu = usage.ru_utime + usage.ru_stime
    return Measured(seconds, cpu, usage.ru_maxrss * KILOBYTE, text)


@dataclass(frozen=True)
class Nodes:
    """Seconds from the registration of each node's execution to its publication, in order; and of all."""

    seconds: dict[str, float]
    span: float


def node_seconds(database: Path) -> Nodes:
    """Read the times of the only run from ML Metadata; nodes may overlap."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    store = metadata_store.MetadataStore(config)
    names = {context.id: context.name for context in store.get_contexts_by_type("node")}
    seconds = {}
    executions = store.get_executions()
    for execution in executions:
        for context in store.get_contexts_by_execution(execution.id):
            if context.id in names:
                elapsed_ms = execution.last_update_time_since_epoch - execution.create_time_since_epoch
                seconds[names[context.id].split(".", 1)[1]] = elapsed_ms / 1000
    begin_ms = min(execution.create_time_since_epoch for execution in executions)
    end_ms = max(execution.last_update_time_since_epoch for execution in executions)
    return Nodes(seconds, (end_ms - begin_ms) / 1000)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--pairs", type=int, default=1, help="how often each side is run")
    parser.add_argument("--stock", action="store_true", help="run stock TFX too")
    args = parser.parse_args()
    ours, bare, stock, cached = [], [], [], []
    nodes: list[Nodes] = []
    with tempfile.TemporaryDirectory() as scratch:
        records = Path(scratch, "records")
        stock_command = [sys.executable, "-m", "bench.stock_tfx", "--records", str(records)]
        if args.stock:
            measure([*stock_command, "--write-from", str(DATA)])
        for turn in range(args.pairs):
            root = Path(scratch, f"mnist-{turn}")
            command = [str(Path(sys.prefix, "bin/mnist")), "run", "--root", str(root)]
            command += ["--data-dir", str(DATA), "--recipe", args.recipe]
            ours.append(measure(command))
            nodes.append(node_seconds(root / "metadata.db"))
            cached.append(measure(command))
            command = [sys.executable, "-m", "bench.bare_keras", "--data-dir", str(DATA)]
            bare.append(measure([*command, "--recipe", args.recipe]))
            if args.stock:
                root = Path(scratch, f"stock-{turn}")
                stock.append(measure([*stock_command, "--root", str(root), "--recipe", args.recipe]))
    for name in nodes[0].seconds:
        print(f"{name:<28} {statistics.median(turn.seconds[name] for turn in nodes):8.1f} s")
    rest = statistics.median(run.seconds - turn.span for run, turn in zip(ours, nodes, strict=True))
    print(f"{'imports and the rest':<28} {rest:8.1f} s")
    _print("mnist run, cold", ours)
    _print("bare Keras script", bare)
    print(f"{'ratio to it, wall':<28} {_ratio(ours, bare, 'seconds'):8.2f}     goal: at most 1.3")
    print(f"{'ratio to it, CPU':<28} {_ratio(ours, bare, 'cpu_seconds'):8.2f}     goal: at most 1.45")
    if stock:
        _print("stock TFX", stock)
        print(
            f"{'its ratio to mnist run':<28} {_ratio(stock, ours, 'seconds'):8.2f}     goal: at least 2.5"
        )
    _print("mnist run, all from cache", cached)
    print(f"{'bare test accuracy':<28} {bare[-1].output.split()[-1]:>8}")


def _print(name: str, runs: list[Measured]) -> None:
    seconds = statistics.median(run.seconds for run in runs)
    cpu = statistics.median(run.cpu_seconds for run in runs)
    peak = max(run.peak_bytes for run in runs) / 1e9
    print(f"{name:<28} {seconds:8.1f} s   {cpu:.1f} s of CPU, peak {peak:.2f} GB")


def _ratio(runs: list[Measured], others: list[Measured], what: str) -> float:
    """The median of the ratios turn by turn: each pair saw the same machine."""
    pairs = zip(runs, others, strict=True)
    return statistics.median(getattr(a, what) / getattr(b, what) for a, b in pairs)


if __name__ == "__main__":
    main()
