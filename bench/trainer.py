"""Images per second of the Trainer against Keras's own fit on arrays in memory, side by side.

    python -m bench.trainer                 MNIST's recipes, three pairs each
    python -m bench.trainer fast --pairs 5
    python -m bench.trainer residual --data-dir photos/     JPEG files in class folders, say

Both sides train the same network with the same optimizer, in the same arithmetic, and in a fresh process
each; they take turns. The Trainer reads its examples as the pipeline wrote them, applies Transform's graph
batch by batch, and calls a model_fn; the other side is a compiled keras.Model and float32 arrays, decoded
before the clock runs.
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
_STEPS = 60  # of other recipes
TRAINER, KERAS = "trainer", "keras"


def trainer_speed(recipe: str, steps: int, artifacts: Path) -> float:
    """Images per second of run_fn, from its metrics.json."""
    from tfx.components.trainer.fn_args_utils import FnArgs

    from trainer.run_metrics import METRICS_FILE
    from trainer.train import run_fn

    graph = _only(artifacts, "Transform/transform_graph/*")
    examples = _only(artifacts, "ImageExampleGen/examples/*")
    with tempfile.TemporaryDirectory() as folder:
        run_fn(
            FnArgs(
                train_files=[f"{examples}/Split-train/*"],
                eval_files=[f"{examples}/Split-validation/*"],
                train_steps=steps,
                transform_output=graph,
                transform_graph_path=graph,
                schema_path=_only(artifacts, "CuratedSchema/schema/*/schema.pbtxt"),
                serving_model_dir=f"{folder}/model",
                model_run_dir=f"{folder}/run",
                custom_config={
                    "recipe": recipe,
                    "overrides": {"validate_each_epoch": False},
                    "images": _image_input(artifacts),
                },
            )
        )
        measured = json.loads(Path(folder, "run", METRICS_FILE).read_text())
        return float(measured["images_per_s"])


def keras_speed(recipe: str, steps: int, artifacts: Path) -> float:
    """Images per second of Model.fit on arrays."""
    import keras
    import numpy as np
    import tensorflow_transform as tft

    from trainer import features, recipes
    from trainer.batches import evaluation_batches, read_split
    from trainer.model import build_network
    from trainer.optimizers import build_optimizer

    class Clock(keras.callbacks.Callback):
        first_step_at = last_step_at = 0.0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            self.last_step_at = time.perf_counter()
            self.first_step_at = self.first_step_at or self.last_step_at

    params = recipes.resolve(recipe)
    keras.utils.set_random_seed(params.seed)
    transform = tft.TFTransformOutput(_only(artifacts, "Transform/transform_graph/*"))
    files = f"{_only(artifacts, 'ImageExampleGen/examples/*')}/Split-train/*"
    batches = evaluation_batches(read_split([files], sys.maxsize), transform, 1000).as_numpy_iterator()
    images, labels = zip(*((batch[features.IMAGE], label) for batch, label in batches), strict=True)
    x, y = np.concatenate(images), np.concatenate(labels)
    network = build_network(params, features.ImageShape(*x.shape[1:]), int(y.max()) + 1)
    network.compile(
        optimizer=build_optimizer(params, steps),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    clock = Clock()
    per_epoch = len(x) // params.batch_size
    done = 0
    while done < steps:
        now = min(per_epoch, steps - done)
        count = now * params.batch_size
        network.fit(
            x[:count],
            y[:count],
            batch_size=params.batch_size,
            callbacks=[clock],
            verbose=0,
        )
        done += now
    return (steps - 1) * params.batch_size / (clock.last_step_at - clock.first_step_at)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=list(STEPS), help="which; default: all of MNIST's")
    parser.add_argument("--data-dir", type=Path, default=DATA, help="of the images; default: MNIST")
    parser.add_argument("--pairs", type=int, default=3, help="how often each side is run")
    parser.add_argument("--side", choices=[TRAINER, KERAS], help=argparse.SUPPRESS)
    parser.add_argument("--artifacts", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        (recipe,) = args.recipes
        measure = trainer_speed if args.side == TRAINER else keras_speed
        speed = measure(recipe, STEPS.get(recipe, _STEPS), args.artifacts)
        print(f"speed {speed}")
        return
    print(f"{'recipe':<10} {'Trainer':>12} {'Model.fit':>12} {'ratio':>7}   goal: at least 0.9")
    with tempfile.TemporaryDirectory() as folder:
        run = [f"{sys.prefix}/bin/mnist", "run", "--root", folder, "--data-dir", str(args.data_dir)]
        # Refused: what is wanted of it comes before the Trainer.
        made = subprocess.run(
            [*run, "--set", "trainer.train_steps=1"], check=False, stdout=subprocess.DEVNULL
        )
        artifacts = Path(folder, "pipelines/mnist")
        if not any(artifacts.glob("Transform/transform_graph/*")):
            sys.exit(made.returncode)
        for recipe in args.recipes:
            pairs = [
                [_measure(recipe, side, artifacts) for side in (TRAINER, KERAS)] for _ in range(args.pairs)
            ]
            ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{recipe:<10} {ours:>8,.0f} i/s {theirs:>8,.0f} i/s {ratio:>7.2f}", flush=True)


def _image_input(artifacts: Path) -> dict[str, Any]:
    """How the examples hold images, as ML Metadata has it."""
    from ml_metadata.metadata_store import MetadataStore
    from tfx.orchestration.metadata import sqlite_metadata_connection_config

    from components.shared.examples import IMAGES

    store = MetadataStore(sqlite_metadata_connection_config(str(artifacts.parents[1] / "metadata.db")))
    (examples,) = store.get_artifacts_by_type("Examples")
    found: dict[str, Any] = json.loads(examples.custom_properties[IMAGES].string_value)
    return found


def _only(artifacts: Path, pattern: str) -> str:
    (found,) = artifacts.glob(pattern)
    return str(found)


def _measure(recipe: str, side: str, artifacts: Path) -> float:
    command = [sys.executable, "-m", "bench.trainer", recipe, "--side", side, "--artifacts", str(artifacts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return float(done.stdout.split("speed ")[-1])


if __name__ == "__main__":
    main()
