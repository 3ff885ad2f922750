"""Pusher: a blessed model becomes a version, a refused one leaves no trace."""

from __future__ import annotations

from pathlib import Path

import pytest
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from components.pusher.executor import Executor, StaleVerdictError
from components.shared.image_facts import IMAGE_FACTS
from components.shared.training_facts import TrainingFacts
from tests.unit.components.training import training


def push(
    tmp_path: Path,
    blessed: bool = True,
    to_folder: bool = True,
    weights: bytes = b"weights",
    **compared: str | int,
) -> standard_artifacts.PushedModel:
    """Push a model folder to tmp_path/serving, or to nowhere, and return the PushedModel artifact.

    `compared` are the properties of BaselineModel's artifact: what the model was compared with.
    """
    model_dir = tmp_path / "model" / "Format-Serving"
    (model_dir / "variables").mkdir(parents=True, exist_ok=True)
    (model_dir / "saved_model.pb").write_bytes(b"graph")
    (model_dir / "variables" / "variables.index").write_bytes(b"index")
    (model_dir / "variables" / "variables.data-00000-of-00001").write_bytes(weights)
    model = standard_artifacts.Model()
    model.uri = str(tmp_path / "model")
    blessing = standard_artifacts.ModelBlessing()
    blessing.uri = str(tmp_path / "blessing")
    blessing.set_int_custom_property("blessed", int(blessed))
    baseline = standard_artifacts.Model()
    for name, value in (compared or {"reason": "nothing is in production yet"}).items():
        if isinstance(value, int):
            baseline.set_int_custom_property(name, value)
        else:
            baseline.set_string_custom_property(name, value)
    pushed = standard_artifacts.PushedModel()
    pushed.uri = str(tmp_path / "pushed")
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(
            base_directory=str(tmp_path / "serving") if to_folder else ""
        )
    )
    Executor().Do(
        {"model": [model], "model_blessing": [blessing], "baseline_model": [baseline]} | training(tmp_path),
        {"pushed_model": [pushed]},
        {"push_destination": proto_utils.proto_to_json(destination)},
    )
    return pushed


def test_a_version_holds_the_facts_of_its_training(tmp_path: Path) -> None:
    for to_folder in (True, False):
        version = Path(push(tmp_path, to_folder=to_folder).get_string_custom_property("pushed_destination"))
        facts = TrainingFacts.read(version)
        assert facts.labels.tolist() == [2, 1]
        assert facts.confidence.sum() == 3
        assert {name: counts.sum() for name, counts in facts.images.items()} == dict.fromkeys(
            IMAGE_FACTS, 3
        )


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


def served(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "serving").glob("[0-9]*"))


def test_the_newest_version_is_not_pushed_again(tmp_path: Path) -> None:
    first = push(tmp_path).get_string_custom_property("pushed_version")
    for compared in ({}, {"version": first}, {"version": "7"}):
        again = push(tmp_path, **compared)

        assert again.get_int_custom_property("pushed") == 1
        assert again.get_string_custom_property("pushed_version") == first
    assert served(tmp_path) == [first]


def test_a_model_goes_over_the_version_that_it_was_compared_with_alone(tmp_path: Path) -> None:
    """A is pushed, B is pushed over A; A's old verdict, and one of a run beside B's, say nothing of B."""
    a = push(tmp_path, weights=b"A").get_string_custom_property("pushed_version")
    b = push(tmp_path, weights=b"B", version=a).get_string_custom_property("pushed_version")

    with pytest.raises(StaleVerdictError, match=f"version {b} is in production .* with none: run"):
        push(tmp_path, weights=b"A")
    with pytest.raises(StaleVerdictError, match=f"but the model was compared with version {a}"):
        push(tmp_path, weights=b"C", version=a)
    assert served(tmp_path) == [a, b]

    judged_anew = push(tmp_path, weights=b"A", version=b).get_string_custom_property("pushed_version")
    assert served(tmp_path) == [a, b, judged_anew]


def test_a_baseline_that_was_asked_for_says_nothing_of_production(tmp_path: Path) -> None:
    first = push(tmp_path, weights=b"A").get_string_custom_property("pushed_version")
    push(tmp_path, weights=b"B", version=first)
    push(tmp_path, weights=b"C", version=first, pinned=1)
    push(tmp_path, weights=b"D", fingerprint="of an imported model")
    assert len(served(tmp_path)) == 4
