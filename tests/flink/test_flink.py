"""The whole pipeline on Flink writes what it writes on this machine, also when a task manager dies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.history.records import Run
from tests.flink import cluster, compare

REPOSITORY = Path(__file__).parent.parent.parent
RUN_S = 600
SETTINGS = (
    "trainer.train_steps=20",
    "gates.accuracy=0",
    "gates.class_accuracy=0",
    "gates.calibration_error=1",
)

pytestmark = [pytest.mark.flink, pytest.mark.timeout(2 * RUN_S)]


@pytest.fixture(scope="module")
def jar() -> Path:
    """Beam's job server for Flink, with Flink in it."""
    path = Path(os.environ.get("FLINK_JOB_SERVER_JAR", ""))
    if not shutil.which("java"):
        pytest.skip("Java is not here: install a JRE 17")
    if not path.is_file():
        pytest.skip("Beam's job server is not here: make test-flink builds it, with Maven")
    return path.absolute()


@contextmanager
def running(root: Path, data: Path, *settings: str) -> Iterator[subprocess.Popen[str]]:
    """`mnist run`, meanwhile the block, and afterwards its exit code."""
    command = [str(Path(sys.executable).with_name("mnist")), "run", "--root", str(root)]
    command += ["--data-dir", str(data), *(f"--set={s}" for s in (*SETTINGS, *settings))]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
        output, _ = process.communicate(timeout=RUN_S)
        assert process.returncode == 0, output
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def local(tiny_mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run to compare with."""
    root = tmp_path_factory.mktemp("local")
    with running(root, tiny_mnist_dir):
        pass
    return compare.newest(root)


def assert_same(run: Run, expected: Run) -> None:
    """Every artifact of the Beam nodes, and with them what the others made of it."""
    assert {node.id: node.state for node in run.nodes} == {node.id: node.state for node in expected.nodes}
    assert compare.counts(run) == compare.counts(expected) == {"train": 550, "validation": 50, "test": 200}
    assert compare.examples(run) == compare.examples(expected)
    for split in compare.SPLITS:
        assert (
            compare.differences(compare.statistics(run, split), compare.statistics(expected, split)) == []
        )
    assert (
        compare.differences(compare.transformed(run).tolist(), compare.transformed(expected).tolist()) == []
    )
    assert compare.graph_operations(run) == compare.graph_operations(expected)
    assert compare.differences(compare.evaluation(run), compare.evaluation(expected)) == []
    assert compare.differences(compare.facts(run), compare.facts(expected)) == []
    assert compare.differences(compare.judgement(run), compare.judgement(expected)) == []
    assert compare.differences(compare.figures(run), compare.figures(expected)) == []


def test_an_embedded_flink_writes_the_same(
    jar: Path, local: Run, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    with running(tmp_path, tiny_mnist_dir, "beam.runner=flink", f"beam.flink.job_server_jar={jar}"):
        pass
    assert_same(compare.newest(tmp_path), local)


def test_two_task_managers_write_the_same_and_one_may_die(
    jar: Path, local: Run, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    with cluster.running(tmp_path / "cluster", jar, task_managers=2) as flink:
        settings = (
            "beam.runner=flink",
            f"beam.flink.job_server_jar={jar}",
            f"beam.flink.master={flink.master}",
            "beam.flink.environment=EXTERNAL",
            f"beam.flink.worker_pool={flink.worker_pool}",
            "beam.nodes.Transform.args=--job_name=transform",
        )
        with running(tmp_path / "root", tiny_mnist_dir, *settings) as process:

            def transforms() -> str | None:
                assert process.poll() is None, "the run ended before Transform"
                return flink.busy("transform")

            job = cluster.eventually(transforms, RUN_S, "Transform's job")
            flink.task_managers[0].kill()
        assert flink.failures(job), "the task manager was none of Transform's"
        assert flink.state(job) == "FINISHED"
        assert flink.slots() == 2
    assert_same(compare.newest(tmp_path / "root"), local)


def test_the_comparison_sees_a_difference(local: Run) -> None:
    values = compare.evaluation(local)
    other = compare.evaluation(local)
    other["metrics"]["()"][""][""]["sparse_categorical_accuracy"]["doubleValue"] += 1e-4
    (difference,) = compare.differences(values, other)
    assert "sparse_categorical_accuracy" in difference
