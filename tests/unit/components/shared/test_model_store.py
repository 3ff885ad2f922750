"""Version folders: Pusher, baseline, rollback, bulk inference and the server mean the same one."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf

from components.shared import classifier, model_store
from serving.models import warmup
from serving.models.config_file import ModelConfig
from serving.models.loader import Loader, Loading, State, find_versions

DATA = "variables/variables.data-{:05d}-of-{:05d}"


def lay(folder: Path, *files: str) -> Path:
    """A folder with these files in it; the contents are their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return folder


WHOLE = ("saved_model.pb", "variables/variables.index", DATA.format(0, 1))
LAYOUTS = {
    "empty": ((), False),
    "graph alone": (("saved_model.pb",), True),
    "as text": (("saved_model.pbtxt",), True),
    "variables alone": (WHOLE[1:], False),
    "whole": (WHOLE, True),
    "no data yet": (WHOLE[:2], False),
    "no index yet": ((WHOLE[0], WHOLE[2]), False),
    "one shard of two": ((*WHOLE[:2], DATA.format(1, 2)), False),
    "two shards of two": ((*WHOLE[:2], DATA.format(0, 2), DATA.format(1, 2)), True),
    "another folder": (("notes/saved_model.pb",), False),
}


@pytest.mark.parametrize(("files", "whole"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_newest_version_is_the_newest_whole_one(
    tmp_path: Path, files: tuple[str, ...], whole: bool
) -> None:
    older = lay(tmp_path / "100", *WHOLE)
    newer = lay(tmp_path / "2000000000", *files)
    newest = model_store.newest(tmp_path)
    assert newest is not None
    assert (newest.number, newest.folder) == ((2_000_000_000, newer) if whole else (100, older))
    assert classifier.find(tmp_path) == newest.folder


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real model with a variable."""
    module = tf.Module()
    module.weight = tf.Variable(2.0)
    function = tf.function(lambda x: {"y": x * module.weight})
    signature = function.get_concrete_function(tf.TensorSpec([None], tf.float32, "x"))
    folder = tmp_path_factory.mktemp("model") / "saved"
    tf.saved_model.save(module, str(folder), {"serving_default": signature})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["everything", WHOLE[0], WHOLE[1], WHOLE[2], "nothing"])
def test_a_server_serves_what_is_the_newest_version_for_everybody_else(
    tmp_path: Path, saved_model: Path, gone: str
) -> None:
    shutil.copytree(saved_model, tmp_path / "100")
    draft = tmp_path / "draft"
    shutil.copytree(saved_model, draft)
    if gone == "everything":
        shutil.rmtree(draft)
        draft.mkdir()
    elif gone != "nothing":
        (draft / gone).unlink()
    loader = Loader([ModelConfig("m", tmp_path)], warmup.warm_up, Loading(poll_s=0.02))
    loader.start()
    try:
        assert loader.wait_until_ready(30)
        draft.rename(tmp_path / "00000200")
        newest = model_store.newest(tmp_path)
        assert newest is not None
        assert newest.number == (200 if gone == "nothing" else 100)
        ends_at = time.monotonic() + 30
        while loader.status("m", None)[0].state is State.LOADING or served(loader) != newest.number:
            assert time.monotonic() < ends_at
            time.sleep(0.02)
        time.sleep(0.2)  # ten looks at the folder
        assert served(loader) == newest.number
    finally:
        loader.close()


def served(loader: Loader) -> int:
    with loader.use("m") as servable:
        return servable.version


@pytest.mark.parametrize(
    "name", ["00000123", "1234567890123456789", "latest", "12a", "-5", ".unfinished-1"]
)
def test_a_name_is_a_number_for_everybody_or_for_nobody(tmp_path: Path, name: str) -> None:
    lay(tmp_path / name, *WHOLE)
    served = find_versions(tmp_path)
    assert served == {version.number: version.folder for version in model_store.versions(tmp_path)}
    assert list(served) == ([123] if name == "00000123" else [])


def test_where_there_is_no_folder_there_is_no_version(tmp_path: Path) -> None:
    assert model_store.versions(tmp_path / "nowhere") == []
    assert model_store.newest(tmp_path) is None


def test_a_new_version_is_newer_than_every_folder_even_when_the_clock_goes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, base = lay(tmp_path / "model", *WHOLE), tmp_path / "served"
    numbers = []
    for now in (1_000, 1_000, 900):
        monkeypatch.setattr(model_store.time, "time", lambda now=now: now)
        numbers.append(model_store.write(source, base).number)
    lay(base / "5000")  # of somebody who is still copying, or never went on
    assert [*numbers, model_store.write(source, base).number] == [1_000, 1_001, 1_002, 5_001]
    newest = model_store.newest(base)
    assert newest is not None
    assert (newest.folder / WHOLE[2]).read_text() == WHOLE[2]
    assert model_store.fingerprint(newest.folder) == model_store.fingerprint(source)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, base = lay(tmp_path / "model", *WHOLE), tmp_path / "served"
    fsync, left = os.fsync, iter(range(2))

    def disk_full(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(model_store.os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        model_store.write(source, base)
    assert list(base.iterdir()) == []


def test_half_a_model_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no whole SavedModel in"):
        model_store.write(lay(tmp_path / "model", *WHOLE[:2]), tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_what_a_killed_process_left_is_removed_after_a_day_and_not_before(tmp_path: Path) -> None:
    source, base = lay(tmp_path / "model", *WHOLE), tmp_path / "served"
    old, new = lay(base / ".unfinished-old"), lay(base / ".unfinished-new")
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    model_store.write(source, base)
    assert (old.exists(), new.exists()) == (False, True)


def test_many_may_push_at_the_same_time(tmp_path: Path) -> None:
    source, base = lay(tmp_path / "model", *WHOLE), tmp_path / "served"
    threads = [threading.Thread(target=model_store.write, args=(source, base)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(model_store.versions(base)) == 8
    assert {path.name.isdecimal() for path in base.iterdir()} == {True}
