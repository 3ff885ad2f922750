"""Models in an object store, with pyarrow's clients, and an S3 and a Google on this machine."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.models.config_file import ConfigFileError, ModelConfig, Policy, folder_of
from serving.models.loader import Loader, Loading, State
from serving.models.object_store import Mirror, StoreFolder
from tests.unit.serving import half_plus_two
from tests.unit.serving.models import store_server

WAIT_S = 60.0
SOURCE = StoreFolder("s3://bucket/models/m")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The model's folder in the store, empty."""
    folder = tmp_path / "store/bucket/models/m"
    folder.mkdir(parents=True)
    with store_server.serving(tmp_path / "store") as endpoint:
        for name, value in {
            "S3_ENDPOINT": endpoint,
            "S3_USE_HTTPS": "0",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": f"http://{endpoint}",
        }.items():
            monkeypatch.setenv(name, value)
        yield folder


def put(version: Path, *names: str) -> None:
    for name in names:
        (version / name).parent.mkdir(parents=True, exist_ok=True)
        (version / name).write_text(f"{version.name} {name}")


def files(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_what_is_wanted_is_copied_and_what_is_gone_goes(bucket: Path, scheme: str) -> None:
    mirror = Mirror(StoreFolder(f"{scheme}://bucket/models/m"))
    newest = Policy().choose
    mirror.update(newest, ())
    assert files(mirror.folder) == {}

    put(bucket / "1", "saved_model.pb", "variables/variables.index")
    put(bucket / "0002", "saved_model.pb", "assets/words.txt")
    put(bucket / "3", "variables/variables.index")  # not complete
    put(bucket / "notes", "saved_model.pb")
    mirror.update(newest, ())
    second = {"2/saved_model.pb": "0002 saved_model.pb", "2/assets/words.txt": "0002 assets/words.txt"}
    assert files(mirror.folder) == second

    put(bucket / "3", "saved_model.pb")
    mirror.update(newest, {2})
    third = {
        "3/saved_model.pb": "3 saved_model.pb",
        "3/variables/variables.index": "3 variables/variables.index",
    }
    assert files(mirror.folder) == second | third, "what serves stays until the new one does"
    mirror.update(newest, {3})
    assert files(mirror.folder) == third

    # A version that does not serve is copied again when its objects change.
    put(bucket / "3", "variables/more")
    mirror.update(newest, {3})
    assert files(mirror.folder) == third
    mirror.update(newest, ())
    assert files(mirror.folder) == third | {"3/variables/more": "3 variables/more"}

    shutil.rmtree(bucket / "3")
    mirror.update(newest, {3})
    assert files(mirror.folder) == second, "a version that is taken away goes, also where it serves"
    mirror.close()
    assert not mirror.folder.exists()


@pytest.mark.slow
def test_a_model_is_served_from_a_store(bucket: Path, half_plus_two_dir: Path) -> None:
    versions = half_plus_two_dir / half_plus_two.NAME
    shutil.copytree(versions / "00000001", bucket / "1")
    loader = Loader([ModelConfig("m", SOURCE)], lambda _: None, Loading(poll_s=0.05))
    loader.start()

    def answer() -> float:
        with loader.use("m") as servable:
            signature = servable.signatures["serving_default"]
            return float(servable.run(signature, ("y",), [np.array([2.0], np.float32)])[0][0])

    def wait_for_version(number: int) -> None:
        ends_at = time.monotonic() + WAIT_S
        while {each.version for each in loader.status("m", None) if each.state is State.AVAILABLE} != {
            number
        }:
            assert time.monotonic() < ends_at
            time.sleep(0.05)

    assert loader.wait_until_ready(WAIT_S)
    assert answer() == 3.0
    shutil.copytree(versions / "00000002", bucket / "2")
    wait_for_version(2)
    assert answer() == 4.0

    bucket.rename(bucket.with_name("away"))
    time.sleep(0.5)
    assert answer() == 4.0, "a folder that is away ends nothing"
    loader.close()


@pytest.mark.slow
@pytest.mark.usefixtures("bucket")
def test_a_store_that_cannot_be_reached_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("S3_ENDPOINT", "127.0.0.1:1")
    loader = Loader([ModelConfig("m", SOURCE)], lambda _: None, Loading(poll_s=0.05))
    loader.start()
    assert not loader.wait_until_ready(10.0)
    loader.close()
    told = [record.message for record in caplog.records if "cannot be read" in record.message]
    assert len(told) == 1
    assert told[0].startswith(f"m: {SOURCE} cannot be read: ")


@pytest.mark.parametrize("base_path", ["hdfs://host/m", "s3://", "s3:///"])
def test_other_stores_are_refused(base_path: str) -> None:
    with pytest.raises(ConfigFileError, match="a base path is a folder, or one of s3://BUCKET/FOLDER"):
        folder_of(base_path)


def test_a_base_path_is_a_folder_or_a_uri() -> None:
    assert folder_of("/models/m/") == Path("/models/m")
    assert folder_of("gs://bucket/m/") == StoreFolder("gs://bucket/m")
