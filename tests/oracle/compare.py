"""Compares with the real tf.estimator, live: python -m tests.oracle.compare [PYTHON]

Builds an environment of tensorflow-cpu 2.15.1 and tensorflow-estimator 2.15.0 under .cache/oracle with a
Python 3.11, has it train 200 steps, and does the same here, in both styles of a model function; then begins
with the checkpoint that it has left. `--record`
writes tests/oracle/estimator_oracle.json again, from 20 steps.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.oracle import cnn_mnist, inputs, ours
from trainer import model

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".cache" / "oracle"
PACKAGES = ("tensorflow-cpu==2.15.1", "tensorflow-estimator==2.15.0")
MODEL_DIR = FOLDER / "model_dir"
STEPS, RECORDED_STEPS = 200, 20
TOLERANCE = 1e-5


def environment(python: str) -> Path:
    """The interpreter of the environment, which is built if it is not there."""
    made = FOLDER / "venv/bin/python"
    ready = FOLDER / "ready"
    if not ready.exists():
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        subprocess.run([python, "-m", "venv", FOLDER / "venv"], check=True)
        subprocess.run([made, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        ready.touch()
    return made


def real(python: Path, given: dict[str, np.ndarray], steps: int, output: Path) -> dict[str, Any]:
    """What the real one does."""
    np.savez(FOLDER / "inputs.npz", **given)
    script = HERE / "real_estimator.py"
    shutil.rmtree(MODEL_DIR, ignore_errors=True)
    command = [python, script, FOLDER / "inputs.npz", str(steps), output, MODEL_DIR]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def main() -> int:
    """Compare; 1 where something is not the same."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--record"]
    python = environment(arguments[0] if arguments else "python3.11")
    given = inputs.make()
    if "--record" in sys.argv:
        real(python, given, RECORDED_STEPS, HERE / "estimator_oracle.json")
        return 0
    theirs = real(python, given, STEPS, FOLDER / "output.json")["training"]
    worst = 0.0
    for style, function in (("tensorflow 1's", cnn_mnist.cnn_model_fn), ("native", model.model_fn)):
        done = ours.trained(given, STEPS, function)
        off = float(np.abs(np.subtract(done["losses"], theirs["losses"])).max())
        others = int(np.sum(np.not_equal(done["classes"], theirs["classes"])))
        print(f"{style}: {STEPS} losses within {off:.1e}, {others} of {inputs.IMAGES} predictions differ")
        begun = ours.warm_started(given, str(MODEL_DIR), function)
        differing = int(np.sum(np.not_equal(begun, theirs["classes"])))
        print(f"{style}: of the Estimator's checkpoint {differing} of {inputs.IMAGES} predictions differ")
        worst = max(worst, off, float(others + differing))
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
