"""Whole runs of `mnist run` on a few hundred real digits, as a person starts them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.config import PipelineConfig
from pipeline.history.connection import connection_config

REPOSITORY = Path(__file__).parents[2]
MNIST = str(Path(sys.prefix) / "bin/mnist")
NODES = [
    "Images",
    "ImageExampleGen",
    "CuratedSchema",
    "StatisticsGen",
    "ExampleValidator",
    "DataGate",
    "Transform",
    "Trainer",
    "BaselineModel",
    "Evaluator",
    "ServingValidator",
    "Pusher",
    "ReportGen",
]
# A few hundred digits teach enough to pass these gates, and chance (0.1) does not.
SETTINGS = {
    "trainer.train_steps": 60,
    "gates.accuracy": 0.5,
    "gates.class_accuracy": 0,
    "gates.calibration_error": 1,
    # Of 200 test digits one more or less is chance.
    "gates.accuracy_drop": 1,
    "gates.class_accuracy_drop": 1,
}
TINY = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
EXECUTED = re.compile(r"^(\w+) +(cached|done|failed|skipped) +[0-9.]+ s$", re.MULTILINE)


BROKEN_EXECUTOR = """

def _broken(*args):
    raise RuntimeError("an edit")


Executor.Do = _broken
"""


def command(root: Path, data: Path, *options: str) -> list[str]:
    return [MNIST, "run", "--root", str(root), "--data-dir", str(data), *TINY, *options]


# A network namespace of its own: no way out, and no loopback but its own.
OFFLINE = (
    "unshare",
    "--map-root-user",
    "--net",
    "sh",
    "-c",
    'ip link set lo up 2>/dev/null; exec "$@"',
    "-",
)


def run(
    root: Path,
    data: Path,
    *options: str,
    environment: dict[str, str] | None = None,
    within: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*within, *command(root, data, *options)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **(environment or {})},
    )


def states(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    return dict(EXECUTED.findall(done.stdout))


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.fixture(scope="module")
def offline() -> tuple[str, ...]:
    """What takes the network from a command; nothing where this system does not let a user do so."""
    tried = subprocess.run([*OFFLINE, "true"], capture_output=True, check=False)
    return OFFLINE if tried.returncode == 0 else ()


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_mnist_dir: Path, offline: tuple[str, ...]
) -> Path:
    """The root of one finished run, without a network; its output is in first.txt."""
    root, outside = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("outside")
    environment = {"HOME": str(outside), "TMPDIR": str(outside)}
    done = run(root, tiny_mnist_dir, environment=environment, within=offline)
    assert done.returncode == 0, done.stdout + done.stderr
    (root / "first.txt").write_text(done.stdout)
    assert done.stderr == "", "something got past the log"
    assert not list(outside.iterdir()), "something was written outside of the root"
    return root


def test_the_first_run_executes_every_node_and_pushes(finished: Path) -> None:
    output = (finished / "first.txt").read_text()
    assert dict(EXECUTED.findall(output)) == dict.fromkeys(NODES, "done")
    assert "blessed and pushed" in output
    (version,) = (finished / "serving" / "mnist").iterdir()
    assert version.name.isdigit()
    assert f"{version}" in output


def test_no_node_needs_a_network(finished: Path, offline: tuple[str, ...]) -> None:
    if not offline:
        pytest.skip("this system does not let a user make a network namespace")
    assert "blessed and pushed" in (finished / "first.txt").read_text()


def test_nothing_is_written_outside_the_root_s_rooms(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "first.txt",
        "logs",
        "metadata.db",
        "pipelines",
        "reports",
        "serving",
    }
    assert not list(finished.glob("pipelines/mnist/.scratch/*"))


def test_the_second_run_is_cached_whole(finished: Path, tiny_mnist_dir: Path) -> None:
    artifacts = tree(finished / "pipelines"), tree(finished / "serving")
    done = run(finished, tiny_mnist_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done) == dict.fromkeys(NODES, "cached")
    assert "everything from the cache" in done.stdout
    assert (tree(finished / "pipelines"), tree(finished / "serving")) == artifacts


def test_a_run_with_nothing_changed_needs_no_tfx_and_is_recorded_as_tfx_records_it(
    finished: Path, tiny_mnist_dir: Path
) -> None:
    """What is known before TFX is imported must lead to the same run as TFX's own cache."""
    store = MetadataStore(connection_config(PipelineConfig(root=finished)))
    ended, recorded = [], []
    for forget in (False, True):
        if forget:
            last = newest_run(store)
            last.custom_properties["unchanged"].string_value = ""
            store.put_contexts([last])
        done = run(finished, tiny_mnist_dir)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("loading TensorFlow and TFX" in done.stdout) == forget
        ended.append(states(done))
        recorded.append(records_of(store, newest_run(store)))
    assert ended[0] == ended[1] == dict.fromkeys(NODES, "cached")
    assert recorded[0] == recorded[1]


def newest_run(store: MetadataStore) -> metadata_store_pb2.Context:
    return max(store.get_contexts_by_type("pipeline_run"), key=lambda context: context.id)


def records_of(store: MetadataStore, run_context: metadata_store_pb2.Context) -> list[tuple[object, ...]]:
    """All that ML Metadata holds of a run, but for the run's name, ids of executions, and times."""
    return sorted(
        (
            execution.type,
            execution.last_known_state,
            str(sorted(execution.properties.items())),
            str(sorted(execution.custom_properties.items())),
            sorted(
                (context.type, context.name)
                for context in store.get_contexts_by_execution(execution.id)
                if context.id != run_context.id
            ),
            sorted(
                (event.type, event.artifact_id, event.path.SerializeToString())
                for event in store.get_events_by_execution_ids([execution.id])
            ),
        )
        for execution in store.get_executions_by_context(run_context.id)
    )


def test_a_pushed_model_that_was_deleted_is_pushed_again(finished: Path, tiny_mnist_dir: Path) -> None:
    (version,) = (finished / "serving/mnist").iterdir()
    shutil.rmtree(version)
    done = run(finished, tiny_mnist_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done) == dict.fromkeys(NODES, "cached") | {"Pusher": "done", "ReportGen": "done"}
    assert len(list((finished / "serving/mnist").iterdir())) == 1


def test_the_pushed_model_answers_png_pixels_and_examples_alike(
    finished: Path, tiny_mnist_dir: Path
) -> None:
    script = Path(__file__).parent / "ask_model.py"
    (version,) = (finished / "serving" / "mnist").iterdir()
    done = subprocess.run(
        [sys.executable, script, version, tiny_mnist_dir], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, *_ in answers] == ["pixels", "examples", "serving_default"]
    assert answers[0][1:] == answers[1][1:] == answers[2][1:]
    assert len(answers[0][1:]) == 200


def test_a_candidate_worse_than_the_one_in_production_is_refused_and_that_one_stays(
    finished: Path, tiny_mnist_dir: Path
) -> None:
    served = tree(finished / "serving")
    settings = ("trainer.train_steps=5", "gates.accuracy=0", "gates.accuracy_drop=0.05")
    done = run(finished, tiny_mnist_dir, *(part for setting in settings for part in ("--set", setting)))
    assert done.returncode == 1, done.stdout + done.stderr
    (version,) = (finished / "serving" / "mnist").iterdir()
    assert re.search(rf"^in production  0\.\d{{4}}, version {version.name}$", done.stdout, re.MULTILINE)
    assert "refused: not pushed" in done.stdout
    assert "accuracy lost against the baseline overall is" in done.stdout
    assert tree(finished / "serving") == served


def test_a_model_below_a_gate_is_refused_and_the_served_one_stays(
    finished: Path, tiny_mnist_dir: Path
) -> None:
    served = tree(finished / "serving")
    done = run(finished, tiny_mnist_dir, "--set", "gates.accuracy=0.9999")
    assert done.returncode == 1
    assert re.search(
        r"accuracy overall is 0\.\d{4} \(0\.\d{4} to [01]\.\d{4}\), 0\.\d{4} below the gate of 0\.9999",
        done.stdout,
    ), done.stdout
    assert "refused" in done.stdout
    assert states(done)["Trainer"] == "cached"
    assert tree(finished / "serving") == served


def test_a_server_that_is_too_slow_fails_its_node_and_nothing_is_pushed(
    finished: Path, tiny_mnist_dir: Path
) -> None:
    served = tree(finished / "serving")
    done = run(finished, tiny_mnist_dir, "--set", "serving_validator.latency_budget_ms=0.001")
    assert done.returncode == 1
    assert re.search(r"ServingValidator failed: .*over the budget of 0\.001 ms", done.stderr), done.stderr
    assert states(done)["Evaluator"] == "cached"
    assert states(done)["ServingValidator"] == "failed"
    assert tree(finished / "serving") == served


def test_labels_beyond_the_announced_classes_are_refused(tmp_path: Path, tiny_mnist_dir: Path) -> None:
    root = tmp_path / "root"
    done = run(root, tiny_mnist_dir, "--set", "data.num_classes=5")
    assert done.returncode == 2
    assert "is not in the range 0…4" in done.stderr
    assert not root.exists()


def test_a_failed_node_is_named_and_the_next_run_goes_on_from_it(
    finished: Path, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns("first.txt", "serving", "logs"))
    # A file where the folder of versions should be: only the Pusher minds.
    (root / "serving").write_text("in the way")
    failed = run(root, tiny_mnist_dir)
    assert failed.returncode == 1
    assert failed.stderr.startswith("mnist: Pusher failed: ")
    assert failed.stderr.count("\n") == 1
    (root / "serving").unlink()
    mended = run(root, tiny_mnist_dir)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert states(mended) == dict.fromkeys(NODES, "cached") | {"Pusher": "done", "ReportGen": "done"}


def interrupted(root: Path, data: Path, how: signal.Signals) -> subprocess.CompletedProcess[str]:
    """A run that would train for minutes and gets a signal on its way."""
    long = ("--set", "trainer.train_steps=100000", "--set", "trainer.seed=5")
    with subprocess.Popen(
        command(root, data, *long), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Transform"):
                break
        time.sleep(2)  # into the Trainer
        process.send_signal(how)
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, "".join(lines) + out, err)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_an_interrupted_run_leaves_nothing_half_done(
    how: signal.Signals, finished: Path, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns("first.txt", "logs"))
    served, trained = tree(root / "serving"), tree(root / "pipelines/mnist/Trainer/model")
    done = interrupted(root, tiny_mnist_dir, how)
    assert done.returncode == 130, done.stdout + done.stderr
    assert "interrupted" in done.stdout
    assert tree(root / "pipelines/mnist/Trainer/model") == trained
    assert tree(root / "serving") == served
    assert not list(root.glob("pipelines/mnist/.scratch/*"))


def test_a_run_of_other_data_is_killed_and_the_next_one_goes_on_from_there(
    finished: Path, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns("first.txt", "logs"))
    served = tree(root / "serving")
    models = root / "pipelines/mnist/Trainer/model"
    trained = len(list(models.iterdir()))
    images = tiny_mnist_dir / "train-images-idx3-ubyte"
    before = images.read_bytes()
    try:
        # Other data in the same folder are not a cache hit.
        _patch(images, 5000, bytes([before[5000] ^ 255]))
        killed = interrupted(root, tiny_mnist_dir, signal.SIGKILL)
        assert tree(root / "serving") == served
        assert list(root.glob("pipelines/mnist/.scratch/*")), "nothing is left to clean up"
        done = run(root, tiny_mnist_dir, "--set", "trainer.seed=5")
    finally:
        images.write_bytes(before)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    # The data that the folder held before are what these are compared with.
    of_data = [*NODES[: NODES.index("Trainer")], "PreviousData"]
    assert states(killed) == dict.fromkeys(of_data, "done") | {"CuratedSchema": "cached"}
    assert done.returncode == 0, done.stdout + done.stderr
    of_model = dict.fromkeys(NODES[NODES.index("Trainer") :], "done")
    assert states(done) == dict.fromkeys(of_data, "cached") | of_model
    assert len(list(models.iterdir())) == trained + 1
    assert served < tree(root / "serving")
    assert not list(root.glob("pipelines/mnist/.scratch/*"))


BAD = {
    "no such folder": lambda folder: shutil.rmtree(folder),
    "a file missing": lambda folder: (folder / "t10k-labels-idx1-ubyte").unlink(),
    "wrong magic": lambda folder: _patch(folder / "train-images-idx3-ubyte", 0, b"\x01"),
    "wrong dtype": lambda folder: _patch(folder / "train-images-idx3-ubyte", 2, b"\x0d"),
    "truncated": lambda folder: _cut(folder / "train-images-idx3-ubyte", 1),
    "surplus bytes": lambda folder: _append(folder / "t10k-images-idx3-ubyte", b"\0"),
    "not gzip inside": lambda folder: (folder / "train-labels-idx1-ubyte").write_bytes(
        b"\x1f\x8b" + b"x" * 99
    ),
    "counts differ": lambda folder: _labels(folder / "train-labels-idx1-ubyte", 599),
    "label out of range": lambda folder: _patch(folder / "t10k-labels-idx1-ubyte", 20, b"\xc8"),
    "too few to validate": lambda folder: _few(folder),
    "no examples": lambda folder: _empty(folder),
}


def _patch(path: Path, offset: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value
    path.write_bytes(content)


def _cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def _append(path: Path, more: bytes) -> None:
    path.write_bytes(path.read_bytes() + more)


def _labels(path: Path, count: int) -> None:
    path.write_bytes(b"\0\0\x08\x01" + count.to_bytes(4, "big") + path.read_bytes()[8 : 8 + count])


def _few(folder: Path) -> None:
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    images.write_bytes(
        b"\0\0\x08\x03" + np.array([11, 28, 28], ">u4").tobytes() + images.read_bytes()[16 : 16 + 11 * 784]
    )
    labels.write_bytes(b"\0\0\x08\x01\0\0\0\x0b" + bytes(range(10)) + b"\0")


def _empty(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(
        b"\0\0\x08\x03" + np.array([0, 28, 28], ">u4").tobytes()
    )
    (folder / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\0")


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_data_folder_is_one_line_and_no_artifact(
    kind: str, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    folder, root = tmp_path / "data", tmp_path / "root"
    shutil.copytree(tiny_mnist_dir, folder)
    BAD[kind](folder)
    done = run(root, folder)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("mnist: ")
    assert done.stderr.count("\n") == 1
    assert str(folder) in done.stderr
    assert not root.exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe", "slow"], "slow"),
        (["--set", "gates.acuracy=1"], "did you mean gates.accuracy"),
        (["--set", "trainer.learning_rate=-1"], "trainer.learning_rate"),
        (["--set", "gates.accuracy"], "key=value"),
    ],
)
def test_a_bad_setting_is_one_line(
    options: list[str], said: str, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    done = run(tmp_path / "root", tiny_mnist_dir, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "root").exists()


def test_a_root_that_cannot_be_written_is_one_line(tiny_mnist_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file", tiny_mnist_dir)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path / "file") in done.stderr


def test_help_imports_neither_tensorflow_nor_tfx() -> None:
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    for arguments in (["--help"], ["run", "--help"], ["data", "fetch", "--help"]):
        done = subprocess.run(
            [MNIST, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
        assert "click" in imported
        assert not imported & {"tensorflow", "tfx", "apache_beam", "keras", "pydantic"}


def test_the_log_of_the_pushed_model_s_server_is_watched(
    finished: Path, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    from components.image_example_gen.sources import idx
    from serving.client import Client
    from tests.integration.serving.model_server import running
    from trainer import features

    images = next(idx.read_images(tiny_mnist_dir / "t10k-images-idx3-ubyte", 200))
    logs, told = tmp_path / "logs", tmp_path / "drift.json"
    with (
        running(finished / "serving" / "mnist", tmp_path, "--log-requests", str(logs)) as server,
        Client("127.0.0.1", server.grpc_port, "grpc", model="mnist") as client,
    ):
        client.predict({features.IMAGE: 255 - images}, features.SIGNATURE_PIXELS)
    lenient = [f"--max-{what}-distance=1" for what in ("image", "class", "confidence")]
    for options, code in ((["--json", str(told)], 3), (lenient, 0)):
        done = monitor(finished, logs, *options)
        assert done.returncode == code, done.stdout + done.stderr
        assert "200 images in 1 requests" in done.stdout
        assert done.stderr == ""
    assert '"drift": true' in told.read_text()
    written = {*finished.rglob("*")}
    done = monitor(finished, tmp_path)
    assert done.returncode == 2
    assert {*finished.rglob("*")} == written
    assert done.stderr.startswith(f"mnist: {tmp_path}: no request log")
    assert done.stderr.count("\n") == 1


def monitor(root: Path, logs: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [MNIST, "monitor", "--root", str(root), "--logs", str(logs), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_damaged_data_stop_before_training_and_say_what_to_do(tiny_mnist_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_mnist_dir, data)
    images = data / "t10k-images-idx3-ubyte"
    content = images.read_bytes()
    images.write_bytes(content[:16] + bytes(255 - pixel for pixel in content[16:]))
    done = run(tmp_path / "root", data)
    assert done.returncode == 1
    assert states(done)["DataGate"] == "failed"
    assert "Trainer" not in states(done)
    first, *anomalies, last = done.stderr.splitlines()
    assert first == f"mnist: DataGate failed: {len(anomalies)} anomalies in the data"
    assert all(re.match(r"  (test|train)\.[a-z_.]+ \(\d+\.\d%\): ", line) for line in anomalies)
    assert "or let them pass with --set data_gate.allow=test.skew.mean_intensity," in last


def test_an_edit_of_a_node_s_code_executes_it_and_what_follows(
    finished: Path, tiny_mnist_dir: Path, tmp_path: Path
) -> None:
    for package in ("components", "kubeflow", "pipeline", "serving", "trainer"):
        shutil.copytree(REPOSITORY / package, tmp_path / package)
    shutil.copy(REPOSITORY / "_tfx_image_pipeline.py", tmp_path)  # looks for packages next to itself
    edited = {"PYTHONPATH": str(tmp_path)}
    with (tmp_path / "components/evaluator/gates.py").open("a") as gates:
        gates.write("# An edit.\n")

    done = run(finished, tiny_mnist_dir, environment=edited)

    assert done.returncode == 0, done.stdout + done.stderr
    after = ["Evaluator", "Pusher", "ReportGen"]
    assert states(done) == dict.fromkeys(NODES, "cached") | dict.fromkeys(after, "done")

    with (tmp_path / "components/image_example_gen/executor.py").open("a") as ingest:
        ingest.write(BROKEN_EXECUTOR)

    done = run(finished, tiny_mnist_dir, environment=edited)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "mnist: ImageExampleGen failed: an edit" in done.stderr
