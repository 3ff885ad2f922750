"""What goes wrong on real machines: after each, a plain `mnist run` works, and what is served stayed whole.

A killed run is in test_local_run.py, a second run at the same time in tests/unit/pipeline/test_recovery.py.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from serving.models.loader import find_versions
from tests.e2e.test_local_run import MNIST, NODES, states

QUICK = [
    "--set",
    "gates.accuracy=0.01",
    "--set",
    "gates.class_accuracy=0",
    "--set",
    "gates.calibration_error=1",
    "--set",
    "trainer.train_steps=5",
]
FUTURE = int(time.time()) + 10**6  # a version pushed while the clock was ahead


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_mnist_dir: Path) -> Path:
    """The root of a finished run, whose version is served as one from the future."""
    root = tmp_path_factory.mktemp("root")
    done = run(root, tiny_mnist_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    (pushed,) = (root / "serving" / "mnist").iterdir()
    pushed.rename(pushed.with_name(str(FUTURE)))
    return root


def run(
    root: Path, data: Path, before: list[str] | None = None, most_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    """`mnist run`, behind another command perhaps, with a bound on how much goes into one file."""

    def bound() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    return subprocess.run(
        [*(before or []), MNIST, "run", "--root", str(root), "--data-dir", str(data), *QUICK],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=bound,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_no_room_lost_artifacts_and_a_clock_that_went_back(root: Path, tiny_mnist_dir: Path) -> None:
    """One after the other, as each leaves the nodes before it in the cache."""
    serving, served = root / "serving" / "mnist", root / "serving" / "mnist" / str(FUTURE)
    whole = contents(served)
    weights = max(map(len, whole.values()))

    # The version that ML Metadata knows is gone, and there is no room for the weights in a new one.
    away = served.rename(root / "away")
    full = run(root, tiny_mnist_dir, most_bytes=weights - 1)
    assert full.returncode == 1, full.stdout + full.stderr
    assert full.stderr.startswith("mnist: Pusher failed: ")
    assert full.stderr.count("\n") == 1
    assert states(full) == dict.fromkeys(NODES[:-2], "cached") | {"Pusher": "failed"}
    assert not find_versions(serving), "a half push must not be seen"
    away.rename(served)
    page = subprocess.run(
        [MNIST, "report", "--root", str(root)], capture_output=True, text=True, check=True
    ).stdout.strip()
    told = Path(page).read_text()
    assert '<h1 class="bad">Failed in Pusher</h1>' in told
    assert "File too large" in told
    assert "ImageExampleGen.fingerprint" in told

    # Somebody cleared up behind ML Metadata's back: one artifact is gone, another is empty.
    shutil.rmtree(next((root / "pipelines/mnist/Evaluator/evaluation").iterdir()))
    statistics = next((root / "pipelines/mnist/StatisticsGen/statistics").iterdir())
    for path in statistics.rglob("*.pb"):
        path.unlink()
    mended = run(root, tiny_mnist_dir)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert {node: states(mended)[node] for node in ("Trainer", "StatisticsGen", "Evaluator", "Pusher")} == {
        "Trainer": "cached",
        "StatisticsGen": "done",
        "Evaluator": "done",
        "Pusher": "done",
    }

    # The clock went back, and the model is in production already: it is not pushed again.
    assert find_versions(serving) == {FUTURE: served}
    assert contents(served) == whole
    assert all(path.name.isdecimal() for path in serving.iterdir())


def test_a_run_after_a_rollback_leaves_what_is_served(root: Path, tiny_mnist_dir: Path) -> None:
    serving = root / "serving" / "mnist"
    shutil.copytree(serving / str(FUTURE), serving / str(FUTURE + 1))
    command = [MNIST, "rollback", str(FUTURE), "--root", str(root)]
    rolled_back = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rolled_back.returncode == 0, rolled_back.stderr
    done = run(root, tiny_mnist_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    versions = find_versions(serving)
    assert versions is not None
    assert sorted(versions) == [FUTURE, FUTURE + 1, FUTURE + 2]
    listed = subprocess.run(
        [MNIST, "runs", "--root", str(root)], capture_output=True, text=True, check=True
    )
    assert f"rolled back to {FUTURE}" in listed.stdout.splitlines()[2]


def test_a_root_that_may_only_be_read_is_one_line(root: Path, tiny_mnist_dir: Path) -> None:
    # The superuser may write anyway, unless that capability is taken away.
    before = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    if before and subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system does not let the superuser give up a capability")
    folders = [path for path in (root, *root.rglob("*")) if path.is_dir()]
    modes = [path.stat().st_mode for path in folders]
    try:
        for path in folders:
            path.chmod(0o555)
        found = run(root, tiny_mnist_dir, before)
        new = run(root / "new", tiny_mnist_dir, before)
    finally:
        for path, mode in zip(folders, modes, strict=True):
            path.chmod(mode)
    for done in (found, new):
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stdout == ""
        assert done.stderr.startswith(f"mnist: {root}")
        assert "Permission denied" in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (root / "new").exists()
