"""The whole cold `mnist run` against a bare Keras script of the same recipe, side by side.

    make bench            one pair
    python -m bench.run --pairs 3

Each side is a fresh process, imports included; they take turns, so that a machine that gets slower
slows both. The pipeline starts from nothing: no cache, no metadata.
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


def node_seconds(database: Path) -> dict[str, float]:
    """Seconds from the registration of each node's execution to its publication, in order."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    store = metadata_store.MetadataStore(config)
    names = {context.id: context.name for context in store.get_contexts_by_type("node")}
    seconds = {}
    for execution in store.get_executions():
        for context in store.get_contexts_by_execution(execution.id):
            if context.id in names:
                elapsed_ms = execution.last_update_time_since_epoch - execution.create_time_since_epoch
                seconds[names[context.id].split(".", 1)[1]] = elapsed_ms / 1000
    return seconds


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--pairs", type=int, default=1, help="how often each side is run")
    args = parser.parse_args()
    pipeline_runs, bare_runs = [], []
    nodes: dict[str, float] = {}
    for _ in range(args.pairs):
        with tempfile.TemporaryDirectory() as root:
            command = [str(Path(sys.prefix, "bin/mnist")), "run", "--root", root, "--data-dir", str(DATA)]
            pipeline_runs.append(measure([*command, "--recipe", args.recipe]))
            nodes = node_seconds(Path(root, "metadata.db"))
        bare = [sys.executable, "-m", "bench.bare_keras", "--data-dir", str(DATA)]
        bare_runs.append(measure([*bare, "--recipe", args.recipe]))
    total = statistics.median(run.seconds for run in pipeline_runs)
    bare_seconds = statistics.median(run.seconds for run in bare_runs)
    for name, seconds in nodes.items():
        print(f"{name:<28} {seconds:8.1f} s")
    print(f"{'imports and the rest':<28} {pipeline_runs[-1].seconds - sum(nodes.values()):8.1f} s")
    print(f"{'mnist run, cold':<28} {total:8.1f} s   peak {pipeline_runs[-1].peak_bytes / 1e9:.2f} GB")
    print(f"{'bare Keras script':<28} {bare_seconds:8.1f} s   peak {bare_runs[-1].peak_bytes / 1e9:.2f} GB")
    ratios = [a.seconds / b.seconds for a, b in zip(pipeline_runs, bare_runs, strict=True)]
    print(f"{'ratio':<28} {statistics.median(ratios):8.2f}     goal: at most 2.0")
    print(f"{'bare test accuracy':<28} {bare_runs[-1].output.split()[-1]:>8}")


if __name__ == "__main__":
    main()
