"""Images per second of the Trainer against Keras's own fit on arrays in memory, side by side.

    python -m bench.trainer                 the recipes, three pairs each
    python -m bench.trainer fast --pairs 5

Both sides train the same network with the same optimizer, in the same arithmetic, and in a fresh process
each; they take turns. The Trainer reads its examples as the pipeline wrote them, applies Transform's graph
batch by batch, and calls a model_fn; the other side is a compiled keras.Model and float32 arrays.
The first step, which compiles, counts on neither side.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).parent.parent
DATA = ROOT / "var/data/mnist"
STEPS = {"fast": 859, "tutorial": 300, "accurate": 150}
TRAINER, KERAS = "trainer", "keras"


def trainer_speed(recipe: str, steps: int, artifacts: Path) -> float:
    """Images per second of run_fn, from its metrics.json."""
    from tfx.components.trainer.fn_args_utils import FnArgs

    from trainer.run_metrics import METRICS_FILE
    from trainer.train import run_fn

    def only(pattern: str) -> str:
        (found,) = artifacts.glob(pattern)
        return str(found)

    graph = only("Transform/transform_graph/*")
    examples = only("ImageExampleGen/examples/*")
    with tempfile.TemporaryDirectory() as folder:
        run_fn(
            FnArgs(
                train_files=[f"{examples}/Split-train/*"],
                eval_files=[f"{examples}/Split-validation/*"],
                train_steps=steps,
                transform_output=graph,
                transform_graph_path=graph,
                schema_path=only("CuratedSchema/schema/*/schema.pbtxt"),
                serving_model_dir=f"{folder}/model",
                model_run_dir=f"{folder}/run",
                custom_config={"recipe": recipe, "overrides": {"validate_each_epoch": False}},
            )
        )
        measured = json.loads(Path(folder, "run", METRICS_FILE).read_text())
        return float(measured["images_per_s"])


def keras_speed(recipe: str, steps: int) -> float:
    """Images per second of Model.fit on arrays."""
    import keras

    from bench.bare_keras import read
    from trainer import recipes
    from trainer.features import DEFAULT_IMAGE_SHAPE
    from trainer.model import build_network
    from trainer.optimizers import build_optimizer

    class Clock(keras.callbacks.Callback):
        first_step_at = last_step_at = 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            self.last_step_at = time.perf_counter()
            self.first_step_at = self.first_step_at or self.last_step_at

    params = recipes.resolve(recipe)
    keras.utils.set_random_seed(params.seed)
    x, y = read(DATA, "train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    held_out = len(x) // 12
    network = build_network(params, DEFAULT_IMAGE_SHAPE, 10)
    network.compile(
        optimizer=build_optimizer(params, steps),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    clock = Clock()
    per_epoch = (len(x) - held_out) // params.batch_size
    done = 0
    while done < steps:
        now = min(per_epoch, steps - done)
        count = now * params.batch_size
        network.fit(
            x[held_out:][:count],
            y[held_out:][:count],
            batch_size=params.batch_size,
            callbacks=[clock],
            verbose=0,
        )
        done += now
    return (steps - 1) * params.batch_size / (clock.last_step_at - clock.first_step_at)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=list(STEPS), help="which; default: all")
    parser.add_argument("--pairs", type=int, default=3, help="how often each side is run")
    parser.add_argument("--side", choices=[TRAINER, KERAS], help=argparse.SUPPRESS)
    parser.add_argument("--artifacts", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        (recipe,) = args.recipes
        steps = STEPS[recipe]
        speed = (
            trainer_speed(recipe, steps, args.artifacts)
            if args.side == TRAINER
            else keras_speed(recipe, steps)
        )
        print(f"speed {speed}")
        return
    print(f"{'recipe':<10} {'Trainer':>12} {'Model.fit':>12} {'ratio':>7}   goal: at least 0.9")
    with tempfile.TemporaryDirectory() as folder:
        run = [f"{sys.prefix}/bin/mnist", "run", "--root", folder, "--data-dir", str(DATA)]
        gates = ["--set", "gates.accuracy=0", "--set", "gates.class_accuracy=0"]
        subprocess.run(
            [*run, *gates, "--set", "trainer.train_steps=1"], check=True, stdout=subprocess.DEVNULL
        )
        artifacts = Path(folder, "pipelines/mnist")
        for recipe in args.recipes:
            pairs = [
                [_measure(recipe, side, artifacts) for side in (TRAINER, KERAS)] for _ in range(args.pairs)
            ]
            ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{recipe:<10} {ours:>8,.0f} i/s {theirs:>8,.0f} i/s {ratio:>7.2f}", flush=True)


def _measure(recipe: str, side: str, artifacts: Path) -> float:
    command = [sys.executable, "-m", "bench.trainer", recipe, "--side", side, "--artifacts", str(artifacts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return float(done.stdout.split("speed ")[-1])


if __name__ == "__main__":
    main()
