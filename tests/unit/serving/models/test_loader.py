"""Version folders: loaded, changed, broken, repaired and gone; what serves goes on serving."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.models import warmup
from serving.models.config_file import ModelConfig, Policy
from serving.models.loader import Loader, Loading, State, find_versions
from serving.models.servable import Servable
from serving.protocol.errors import Code, ServingError
from tests.unit.serving import half_plus_two

WAIT_S = 30.0
POLL_S = 0.02


@pytest.fixture(scope="module")
def versions(half_plus_two_dir: Path) -> Path:
    """A folder with version 00000001 (x / 2 + 2) and 00000002 (x / 2 + 3), to copy from."""
    return half_plus_two_dir / half_plus_two.NAME


Start = Callable[..., Loader]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts loaders, and closes them at the end."""
    loaders = []

    def start(*configs: ModelConfig) -> Loader:
        loader = Loader(configs, warmup.warm_up, Loading(poll_s=POLL_S))
        loaders.append(loader)
        loader.start()
        return loader

    yield start
    for loader in loaders:
        loader.close()


def answer(loader: Loader, x: float, version: int | None = None, label: str | None = None) -> float:
    """What the served half-plus says."""
    with loader.use("m", version, label) as servable:
        signature = servable.signatures["serving_default"]
        return float(servable.run(signature, ("y",), [np.array([x], np.float32)])[0][0])


def wait_for(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(POLL_S)


def states(loader: Loader) -> dict[int, State]:
    try:
        return {each.version: each.state for each in loader.status("m", None)}
    except ServingError:
        return {}


def available(loader: Loader) -> set[int]:
    return {version for version, state in states(loader).items() if state is State.AVAILABLE}


def test_only_numeric_folders_with_a_model_are_versions(tmp_path: Path) -> None:
    for name in ("1", "00000123", "x", "2", "-3", "4.0", ".tmp"):
        (tmp_path / name).mkdir()
    for name in ("1", "00000123", "x", "-3", ".tmp"):
        (tmp_path / name / "saved_model.pb").touch()
    assert find_versions(tmp_path) == {1: tmp_path / "1", 123: tmp_path / "00000123"}
    assert find_versions(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(), {7}),
        (Policy(latest=2), {3, 7}),
        (Policy(latest=0, every=True), {1, 3, 7}),
        (Policy(latest=0, specific=(1, 7, 9)), {1, 7}),
        (Policy(latest=0), set()),
    ],
)
def test_policies(policy: Policy, expected: set[int]) -> None:
    assert policy.choose([3, 7, 1]) == expected


@pytest.mark.slow
def test_an_absent_folder_is_waited_for(tmp_path: Path, versions: Path, start: Start) -> None:
    loader = start(ModelConfig("m", tmp_path / "later"))
    time.sleep(5 * POLL_S)
    assert not loader.ready
    with pytest.raises(ServingError, match=r"Latest\(m\)"):
        answer(loader, 2.0)
    shutil.copytree(versions / "00000001", tmp_path / "later" / "1")
    wait_for(lambda: loader.ready)
    assert answer(loader, 2.0) == 3.0


@pytest.mark.slow
def test_the_newest_version_takes_over(tmp_path: Path, versions: Path, start: Start) -> None:
    shutil.copytree(versions / "00000001", tmp_path / "1")
    loader = start(ModelConfig("m", tmp_path))
    wait_for(lambda: loader.ready)
    shutil.copytree(versions / "00000002", tmp_path / "2")
    wait_for(lambda: available(loader) == {2})
    assert answer(loader, 2.0) == 4.0
    assert states(loader)[1] is State.END
    shutil.rmtree(tmp_path / "2")
    wait_for(lambda: available(loader) == {1})
    assert answer(loader, 2.0) == 3.0


@pytest.mark.slow
def test_a_version_in_use_answers_after_it_was_replaced(
    tmp_path: Path, versions: Path, start: Start
) -> None:
    shutil.copytree(versions / "00000001", tmp_path / "1")
    loader = start(ModelConfig("m", tmp_path))
    wait_for(lambda: loader.ready)
    with loader.use("m") as servable:
        shutil.copytree(versions / "00000002", tmp_path / "2")
        wait_for(lambda: available(loader) == {2})
        signature = servable.signatures["serving_default"]
        assert servable.run(signature, ("y",), [np.array([2.0], np.float32)])[0][0] == 3.0
        assert not servable.acquire()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["graph", "variables", "empty"])
def test_a_broken_version_leaves_the_old_one_serving(
    tmp_path: Path, versions: Path, start: Start, damage: str
) -> None:
    shutil.copytree(versions / "00000001", tmp_path / "1")
    loader = start(ModelConfig("m", tmp_path))
    wait_for(lambda: loader.ready)
    broken = shutil.copytree(versions / "00000002", tmp_path / "draft")
    if damage == "graph":
        (broken / "saved_model.pb").write_bytes(b"\xffno model")
    elif damage == "variables":
        (broken / "variables" / "variables.index").unlink()
    else:
        (broken / "saved_model.pb").write_bytes(b"")
    broken.rename(tmp_path / "2")
    wait_for(lambda: states(loader).get(2) is State.END)
    assert available(loader) == {1}
    assert answer(loader, 2.0) == 3.0
    error = next(each.error for each in loader.status("m", 2))
    assert error is not None
    assert error.code is not Code.OK
    assert error.message
    # What was half-copied becomes whole.
    shutil.copytree(versions / "00000002", tmp_path / "2", dirs_exist_ok=True)
    wait_for(lambda: available(loader) == {2})
    assert answer(loader, 2.0) == 4.0


@pytest.mark.slow
def test_a_folder_that_goes_away_does_not_end_the_service(
    tmp_path: Path, versions: Path, start: Start
) -> None:
    shutil.copytree(versions / "00000001", tmp_path / "models" / "1")
    loader = start(ModelConfig("m", tmp_path / "models"))
    wait_for(lambda: loader.ready)
    (tmp_path / "models").rename(tmp_path / "elsewhere")
    time.sleep(10 * POLL_S)
    assert answer(loader, 2.0) == 3.0


@pytest.mark.slow
def test_labels_name_versions(versions: Path, start: Start) -> None:
    config = ModelConfig("m", versions, Policy(0, every=True), {"stable": 1, "canary": 2})
    loader = start(config)
    wait_for(lambda: available(loader) == {1, 2})
    assert answer(loader, 2.0, label="stable") == 3.0
    assert answer(loader, 2.0, label="canary") == 4.0
    with pytest.raises(ServingError, match="Unrecognized servable version label: nope"):
        answer(loader, 2.0, label="nope")
    loader.configure([ModelConfig("m", versions, config.policy, {"stable": 2})], WAIT_S)
    assert answer(loader, 2.0, label="stable") == 4.0


@pytest.mark.slow
def test_a_label_needs_a_version_that_answers(versions: Path, start: Start) -> None:
    loader = start(ModelConfig("m", versions))
    wait_for(lambda: available(loader) == {2})
    with pytest.raises(ServingError, match="assign label to version 1 of model m") as caught:
        loader.configure([ModelConfig("m", versions, Policy(), {"stable": 1})], WAIT_S)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert answer(loader, 2.0) == 4.0


@pytest.mark.slow
def test_models_come_and_go(tmp_path: Path, versions: Path, start: Start) -> None:
    loader = start(ModelConfig("m", versions))
    wait_for(lambda: loader.ready)
    loader.configure([ModelConfig("n", versions, Policy(0, specific=(1,)))], WAIT_S)
    with loader.use("n") as servable:
        assert servable.version == 1
    with pytest.raises(ServingError, match=r"Latest\(m\)"):
        answer(loader, 2.0)
    with pytest.raises(ServingError, match=r"1 model.* did not become available") as caught:
        loader.configure([ModelConfig("n", versions), ModelConfig("gone", tmp_path / "gone")], 0.2)
    assert caught.value.code is Code.UNKNOWN


@pytest.mark.slow
def test_a_change_of_version_without_a_failed_request(tmp_path: Path, versions: Path, start: Start) -> None:
    shutil.copytree(versions / "00000001", tmp_path / "1")
    loader = start(ModelConfig("m", tmp_path))
    wait_for(lambda: loader.ready)
    stop = threading.Event()
    answers: list[set[float]] = [set() for _ in range(4)]
    errors: list[Exception] = []

    def ask(seen: set[float]) -> None:
        while not stop.is_set():
            try:
                seen.add(answer(loader, 2.0))
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=ask, args=(seen,)) for seen in answers]
    for thread in threads:
        thread.start()
    for number in range(2, 7):
        shutil.copytree(versions / f"{number % 2 + 1:08d}", tmp_path / str(number))
        wait_for(lambda number=number: available(loader) == {number})  # type: ignore[misc]
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(seen == {3.0, 4.0} for seen in answers)


def write_warm_up(folder: Path, records: Sequence[bytes]) -> None:
    path = folder / warmup.REQUESTS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def warm_up_record(alias: str) -> bytes:
    record = prediction_log_pb2.PredictionLog()
    request = record.predict_log.request
    request.model_spec.name = "m"
    request.inputs[alias].CopyFrom(tf.make_tensor_proto(np.array([1.0], np.float32)))
    return record.SerializeToString()


def classify_record() -> bytes:
    record = prediction_log_pb2.PredictionLog()
    request = record.classify_log.request
    request.model_spec.signature_name = "classify_x_to_y"
    request.input.example_list.examples.add()
    return record.SerializeToString()


@pytest.mark.slow
def test_a_version_is_warmed_up_before_it_answers(tmp_path: Path, versions: Path, start: Start) -> None:
    shutil.copytree(versions / "00000001", tmp_path / "1")
    write_warm_up(tmp_path / "1", [warm_up_record("x"), classify_record()])
    loader = start(ModelConfig("m", tmp_path))
    wait_for(lambda: loader.ready)
    with loader.use("m") as servable:
        assert set(servable._callables) == {("serving_default", ("y",)), ("classify_x_to_y", ("scores",))}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([warm_up_record("z")], "input tensor alias not found"),
        ([b"\xff\xff"], "Failed to parse warmup record"),
        ([b""] * 1001, "exceeds the maximum"),
        (
            [prediction_log_pb2.PredictionLog(session_run_log={}).SerializeToString()],
            "Unsupported log_type for warmup",
        ),
    ],
    ids=["bad request", "no record", "too many", "other kind"],
)
def test_a_version_that_fails_its_warm_up_does_not_serve(
    tmp_path: Path, versions: Path, start: Start, records: list[bytes], message: str
) -> None:
    shutil.copytree(versions / "00000002", tmp_path / "draft")
    write_warm_up(tmp_path / "draft", records)
    shutil.copytree(versions / "00000001", tmp_path / "1")
    loader = start(ModelConfig("m", tmp_path))
    wait_for(lambda: loader.ready)
    (tmp_path / "draft").rename(tmp_path / "2")
    wait_for(lambda: states(loader).get(2) is State.END)
    assert available(loader) == {1}
    error = next(each.error for each in loader.status("m", 2))
    assert error is not None
    assert message in error.message


@pytest.mark.slow
def test_a_model_that_does_not_load_keeps_no_other_from_being_ready(
    versions: Path, tmp_path: Path, start: Start
) -> None:
    shutil.copytree(versions / "00000001", tmp_path / "good" / "1")
    bad = tmp_path / "bad" / "1"
    bad.mkdir(parents=True)
    (bad / "saved_model.pb").write_bytes(b"no model")
    loader = start(ModelConfig("m", tmp_path / "good"), ModelConfig("bad", tmp_path / "bad"))
    assert loader.wait_until_ready(WAIT_S)
    assert answer(loader, 2.0) == 3.0
    assert loader.status("bad", None)[0].error is not None


@pytest.mark.slow
def test_a_failed_version_is_tried_again_so_many_times(tmp_path: Path) -> None:
    tries: list[int] = []

    def refuse(servable: Servable) -> None:
        tries.append(servable.version)
        raise ServingError(Code.UNAVAILABLE, "not now")

    half_plus_two.write(tmp_path / "m" / "1", 2.0)
    loader = Loader(
        [ModelConfig("m", tmp_path / "m")], refuse, Loading(poll_s=POLL_S, max_retries=2, retry_s=0)
    )
    loader.start()
    try:
        wait_for(lambda: len(tries) == 3)
        time.sleep(10 * POLL_S)
        assert len(tries) == 3
        assert not loader.ready
    finally:
        loader.close()


@pytest.mark.slow
def test_models_are_loaded_at_the_same_time(versions: Path, tmp_path: Path) -> None:
    meeting = threading.Barrier(2, timeout=WAIT_S)
    for name in ("a", "b"):
        shutil.copytree(versions / "00000001", tmp_path / name / "1")
    configs = [ModelConfig(name, tmp_path / name) for name in ("a", "b")]
    loader = Loader(configs, lambda _: meeting.wait() and None, Loading(poll_s=POLL_S, threads=2))
    loader.start()
    try:
        assert loader.wait_until_ready(WAIT_S)
    finally:
        loader.close()
