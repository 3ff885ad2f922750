"""What the commands import, and how long they take before they begin: `python -m bench.imports`.

Each row is a command of its own, the fastest of a few: seconds, its share of the budget, and how many
modules it imports. The last rows are what a light step on Kubeflow imports before its work begins, and a
wholly cached `mnist run` against nothing but the import of TFX.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.run import DATA, measure

MNIST = Path(sys.prefix, "bin/mnist")
BUDGET_S = 0.4
COMMANDS = (
    "--help",
    "run --help",
    "compile --help",
    "submit --help",
    "serve --help",
    "query --help",
    "runs --help",
    "report --help",
    "batch --help",
    "monitor --help",
    "runs --root {root}",
)
NEVER = ("google.cloud.aiplatform", "vertexai")
LIGHT_STEP = """
from pipeline.runtime import environment
with environment.heavy_imports():
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor
    import components.pusher.executor
"""
COUNT = """
import atexit, sys
atexit.register(lambda: print(len(sys.modules), file=sys.stderr))
sys.argv[0] = "mnist"
import _tfx_image_pipeline
_tfx_image_pipeline.main()
"""
SMALL = (
    "trainer.train_steps=20",
    "gates.accuracy=0",
    "gates.class_accuracy=0",
    "gates.calibration_error=1",
)


def fastest(command: list[str], times: int) -> float:
    """Seconds of the fastest run of a command."""
    return min(measure(command).seconds for _ in range(times))


def least_cpu(command: list[str], times: int) -> float:
    """Seconds of CPU of the cheapest run of a command."""
    return min(measure(command).cpu_seconds for _ in range(times))


def modules(words: list[str]) -> int:
    """How many modules a command of mnist imports, counted at its end: while it imports it is silent."""
    done = subprocess.run([sys.executable, "-c", COUNT, *words], capture_output=True, text=True, check=True)
    return int(done.stderr.splitlines()[-1])


def imported(command: list[str]) -> list[str]:
    """Names of the modules that a Python command imports, as `-X importtime` tells them."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    lines = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")]
    return [fields[2].strip() for fields in lines if len(fields) == 3]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=3, help="how often each command is run")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        run = [str(MNIST), "run", "--root", root, "--data-dir", str(DATA)]
        run += [part for setting in SMALL for part in ("--set", setting)]
        measure(run)
        for command in COMMANDS:
            words = command.format(root=root).split()
            seconds = fastest([str(MNIST), *words], args.times)
            name = f"mnist {command.partition(' --root')[0]}"
            share = f"{seconds / BUDGET_S:4.0%} of {BUDGET_S} s"
            print(f"{name:<28} {seconds:6.2f} s  {share}  {modules(words):5d} modules")
        session = imported(["-c", "import pipeline.local.session"])
        unwanted = [name for name in session if name.startswith(NEVER)]
        print(f"{'modules of a run':<28} {len(session):6d}    Vertex AI's among them: {len(unwanted)}")
        cached = fastest(run, args.times)
        tfx = fastest([sys.executable, "-c", "from tfx import v1"], args.times)
        step = least_cpu([sys.executable, "-c", LIGHT_STEP], args.times)
    print(f"{'light step on Kubeflow':<28} {step:6.2f} s of CPU    goal: below 8")
    print(f"{'mnist run, all cached':<28} {cached:6.2f} s")
    print(f"{'import of TFX':<28} {tfx:6.2f} s")
    print(f"{'ratio':<28} {cached / tfx:6.2f}    goal: below 1.3")


if __name__ == "__main__":
    main()
