"""What judging and reporting add to a cold `mnist run`, with and without a model in production.

    python -m bench.judging

Judging is DataGate, BaselineModel, Evaluator and ReportGen, with all that they write; a run without it is
the same run less their seconds, so that both sides saw the same machine. ServingValidator runs parallel to
the Evaluator, on the run's side.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench.run import DATA, measure, node_seconds

TEST_IMAGES = 10_000
JUDGING = ("DataGate", "BaselineModel", "Evaluator", "ReportGen")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="fast")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        served = Path(scratch, "serving")
        for turn, name in enumerate(("nothing in production", "a model in production")):
            root = Path(scratch, f"root-{turn}")
            command = [str(Path(sys.prefix, "bin/mnist")), "run", "--data-dir", str(DATA)]
            # A root of its own makes the run cold; what the first one pushed is the second one's baseline.
            command += ["--root", str(root), "--set", f"push.destination={served}"]
            run = measure([*command, "--recipe", args.recipe, "--set", "gates.class_accuracy_drop=1"])
            seconds = node_seconds(root / "metadata.db").seconds
            judging = {node: seconds[node] for node in JUDGING}
            added = sum(judging.values())
            print(name)
            for node, taken in judging.items():
                print(f"  {node:<26} {taken:8.1f} s")
            print(f"  {'the whole run':<26} {run.seconds:8.1f} s")
            print(f"  {'they add':<26} {added / (run.seconds - added):8.0%}     goal: at most 25 %")
            print(f"  {'Evaluator, images/s':<26} {TEST_IMAGES / judging['Evaluator']:8,.0f}")


if __name__ == "__main__":
    main()
