"""Pusher: a blessed model becomes a version, a refused one leaves no trace."""

from __future__ import annotations

from pathlib import Path

from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components.pusher.executor import Executor


def push(tmp_path: Path, blessed: bool = True, to_folder: bool = True) -> standard_artifacts.PushedModel:
    """Push a model folder to tmp_path/serving, or to nowhere, and return the PushedModel artifact."""
    model_dir = tmp_path / "model" / "Format-Serving"
    (model_dir / "variables").mkdir(parents=True, exist_ok=True)
    (model_dir / "saved_model.pb").write_bytes(b"graph")
    (model_dir / "variables" / "variables.index").write_bytes(b"index")
    (model_dir / "variables" / "variables.data-00000-of-00001").write_bytes(b"weights")
    model = standard_artifacts.Model()
    model.uri = str(tmp_path / "model")
    blessing = standard_artifacts.ModelBlessing()
    blessing.uri = str(tmp_path / "blessing")
    blessing.set_int_custom_property("blessed", int(blessed))
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(tmp_path / "pushed")
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(
            base_directory=str(tmp_path / "serving") if to_folder else ""
        )
    )
    Executor().Do(
        {"model": [model], "model_blessing": [blessing]},
        {"pushed_model": [pushed]},
        {"push_destination": proto_utils.proto_to_json(destination)},
    )
    return pushed


def test_a_blessed_model_is_pushed_whole(tmp_path: Path) -> None:
    pushed = push(tmp_path)
    (version,) = (tmp_path / "serving").iterdir()
    assert pushed.get_string_custom_property("pushed_destination") == str(version)
    assert pushed.get_string_custom_property("pushed_version") == version.name
    assert (version / "saved_model.pb").read_bytes() == b"graph"
    assert (version / "variables" / "variables.data-00000-of-00001").read_bytes() == b"weights"


def test_a_refused_model_leaves_no_trace(tmp_path: Path) -> None:
    pushed = push(tmp_path, blessed=False)
    assert pushed.get_int_custom_property("pushed") == 0
    assert not (tmp_path / "serving").exists()


def test_without_a_destination_the_model_is_in_nothing_but_its_artifact(tmp_path: Path) -> None:
    pushed = push(tmp_path, to_folder=False)
    version = pushed.get_string_custom_property("pushed_version")
    assert pushed.get_string_custom_property("pushed_destination") == f"{pushed.uri}/{version}"
    assert (Path(pushed.uri) / version / "saved_model.pb").read_bytes() == b"graph"
    assert not (tmp_path / "serving").exists()


def test_a_refused_model_is_not_in_the_artifact_either(tmp_path: Path) -> None:
    pushed = push(tmp_path, blessed=False, to_folder=False)
    assert pushed.get_int_custom_property("pushed") == 0
    assert not Path(pushed.uri).exists()
