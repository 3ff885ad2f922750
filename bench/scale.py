"""Seconds and memory of each node as the data grow: 1, 4 and 16 times MNIST.

    python -m bench.scale
    python -m bench.scale --times 1 16 64 --steps 200

Copies are real digits, each time shifted otherwise by up to four pixels, so no two copies are equal. Memory
is that of the run's process and its children (what they share counts once: Linux's proportional set size),
sampled while a node runs; nodes that overlap see each other. The Trainer takes the same number of steps
each time, since its time follows its steps; its images per second tell whether reading keeps up with them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.run import DATA
from components.image_example_gen.sources import idx, idx_pairs
from pipeline.config import PipelineConfig
from pipeline.history.records import History, Run

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SAMPLE_S = 0.1
# What is shared takes some 50 ms to find out, in which the process has to wait for memory that it asks for:
# only where there is more or less than the last time, and now and then.
CHANGE, AT_LEAST_S = 0.02, 2.0
BATCH = 10_000
MEMORY_GOAL_GB = 2.0
TEST_IMAGES = 10_000
REACH = 4  # pixels
_MOVES = range(-REACH, REACH + 1)
SHIFTS: list[tuple[int, int]] = sorted(
    itertools.product(_MOVES, _MOVES), key=lambda shift: (max(map(abs, shift)), shift)
)


def write_copies(source: Path, target: Path, times: int) -> None:
    """Write a data set that is `times` as large; the first copy is the source itself."""
    target.mkdir(parents=True)
    files = idx.find_files(source)
    for split, images, labels in (
        ("train", files.train_images, files.train_labels),
        ("t10k", files.test_images, files.test_labels),
    ):
        with (
            (target / f"{split}-images-idx3-ubyte").open("wb") as image_file,
            (target / f"{split}-labels-idx1-ubyte").open("wb") as label_file,
        ):
            with idx.IdxReader(images, 3) as reader:
                count, height, width = reader.shape
            image_file.write(_header(count * times, height, width))
            label_file.write(_header(count * times))
            for shift in SHIFTS[:times]:
                for some_images, some_labels in idx_pairs.stream(images, labels, BATCH, None):
                    image_file.write(shifted(some_images, shift).tobytes())
                    label_file.write(some_labels.tobytes())


def shifted(images: NDArray[np.uint8], shift: tuple[int, int]) -> NDArray[np.uint8]:
    """Images uint8 [n, H, W], moved down and right by so many pixels; what comes in is background."""
    down, right = shift
    _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (REACH, REACH), (REACH, REACH)))
    top, left = REACH - down, REACH - right
    return padded[:, top : top + height, left : left + width]


def _header(*shape: int) -> bytes:
    return bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes()


@dataclass
class Memory:
    """Bytes of memory that a process and all below it hold, sampled until `stop` is set."""

    pid: int
    stop: threading.Event = field(default_factory=threading.Event)
    samples: list[tuple[float, int]] = field(default_factory=list)

    def watch(self) -> None:
        """Sample until stopped."""
        last_bytes, last_at = 0, 0.0
        while not self.stop.wait(SAMPLE_S):
            processes, at = list(_tree(self.pid)), time.time()
            resident = sum(map(_resident, processes))
            if abs(resident - last_bytes) > CHANGE * last_bytes or at > last_at + AT_LEAST_S:
                last_bytes, last_at = resident, at
                self.samples.append((at, sum(map(_held, processes))))

    def peak(self, begin: float, end: float) -> float:
        """The most in a time, in GB, the last sample before it included."""
        before = [size for at, size in self.samples if at < begin][-1:]
        inside = [size for at, size in self.samples if begin <= at <= end]
        return max(before + inside, default=0) / 1e9


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))
    except OSError:
        return  # it has ended


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:  # it has ended
        return 0


def _held(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


@dataclass(frozen=True)
class Scaled:
    """One run."""

    seconds: dict[str, float]  # by node
    peaks_gb: dict[str, float]  # by node
    total: float
    peak_gb: float
    images_per_s: float  # of the Trainer


def run(data: Path, root: Path, steps: int) -> Scaled:
    """Run the pipeline on a data set, from nothing.

    Raises:
        RuntimeError: when it fails, with its output.
    """
    settings = {"trainer.train_steps": steps, "gates.accuracy": 0, "gates.class_accuracy": 0}
    command = [str(Path(sys.prefix, "bin/mnist")), "run", "--root", str(root), "--data-dir", str(data)]
    command += [
        f"--set={key}={value}" for key, value in (settings | {"gates.calibration_error": 1}).items()
    ]
    begin = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        memory = Memory(process.pid)
        watcher = threading.Thread(target=memory.watch)
        watcher.start()
        try:
            code = process.wait()
        finally:
            memory.stop.set()
            watcher.join()
        total = time.monotonic() - begin
        output.seek(0)
        text = output.read()
    if code:
        raise RuntimeError(f"{' '.join(command)} failed:\n{text}")
    found = History(PipelineConfig(root=root)).find(None)
    seconds = {node.id: node.seconds for node in found.nodes}
    peaks = {
        node.id: memory.peak(node.began.timestamp(), node.began.timestamp() + node.seconds)
        for node in found.nodes
    }
    peak = max(size for _, size in memory.samples) / 1e9
    return Scaled(seconds, peaks, total, peak, _images_per_s(found))


def _images_per_s(found: Run) -> float:
    trainer = found.node("Trainer")
    assert trainer is not None
    model_run = trainer.output("model_run")
    assert model_run is not None
    speed: float = json.loads(Path(model_run.uri, "metrics.json").read_text())["images_per_s"]
    return speed


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--times", type=int, nargs="+", default=[1, 4, 16], choices=range(1, len(SHIFTS) + 1)
    )
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps of each run")
    args = parser.parse_args()
    runs = {}
    for times in args.times:
        with tempfile.TemporaryDirectory() as scratch:
            data = Path(scratch, "data")
            write_copies(DATA, data, times)
            runs[times] = run(data, Path(scratch, "root"), args.steps)
    print("| node |" + "".join(f" {times}x: s | GB |" for times in runs))
    print("|---|" + "---:|---:|" * len(runs))
    for node in runs[args.times[0]].seconds:
        cells = (f" {r.seconds[node]:.1f} | {r.peaks_gb[node]:.2f} |" for r in runs.values())
        print(f"| {node} |" + "".join(cells))
    print("| all |" + "".join(f" {r.total:.1f} | {r.peak_gb:.2f} |" for r in runs.values()))
    print("| Trainer, images/s |" + "".join(f" {r.images_per_s:,.0f} | |" for r in runs.values()))
    rates = (f" {times * TEST_IMAGES / r.seconds['Evaluator']:,.0f} | |" for times, r in runs.items())
    print("| Evaluator, images/s |" + "".join(rates))
    largest = runs[args.times[-1]]
    print(f"peak at {args.times[-1]}x: {largest.peak_gb:.2f} GB, goal: below {MEMORY_GOAL_GB:.0f} GB")


if __name__ == "__main__":
    main()
