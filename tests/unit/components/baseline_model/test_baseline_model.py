"""BaselineModel: which version it takes, and what it says where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from components.baseline_model.executor import Executor
from components.shared import model_store
from components.shared.names import NO_BASELINE_FILE


def lay(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(content)


def look(tmp_path: Path, version: str = "", base: str | None = None) -> standard_artifacts.Model:
    result = standard_artifacts.Model()
    result.uri = str(tmp_path / "result")
    Path(result.uri).mkdir()
    base = str(tmp_path / "serving") if base is None else base
    candidate = standard_artifacts.Model()
    candidate.uri = str(tmp_path / "candidate")
    inputs = {"candidate": [candidate]}
    Executor().Do(inputs, {"result": [result]}, {"base_directory": base, "version": version})
    return result


def test_the_newest_version_is_copied(tmp_path: Path) -> None:
    lay(tmp_path / "serving" / "9", b"old")
    lay(tmp_path / "serving" / "10", b"new")
    result = look(tmp_path)
    folder = model_store.find(result.uri)
    assert folder is not None
    assert Path(folder, "saved_model.pb").read_bytes() == b"new"
    assert result.get_string_custom_property("version") == "10"
    assert model_store.fingerprint(folder) == model_store.fingerprint(str(tmp_path / "serving" / "10"))


def test_another_version_can_be_asked_for(tmp_path: Path) -> None:
    lay(tmp_path / "serving" / "9", b"old")
    lay(tmp_path / "serving" / "10", b"new")
    assert look(tmp_path, "9").get_string_custom_property("version") == "9"


def test_a_model_that_is_in_production_itself_is_compared_with_nothing(tmp_path: Path) -> None:
    lay(tmp_path / "serving" / "9", b"same")
    lay(tmp_path / "candidate", b"same")
    result = look(tmp_path)
    assert model_store.find(result.uri) is None
    reason = "the model is in production itself, as version 9"
    assert result.get_string_custom_property("reason") == reason


def test_a_version_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    lay(tmp_path / "serving" / "9", b"old")
    with pytest.raises(ValueError, match="there is no version 8 in"):
        look(tmp_path, "8")


@pytest.mark.parametrize("base", [None, ""])
def test_without_a_version_it_says_so_and_leaves_no_empty_folder(tmp_path: Path, base: str | None) -> None:
    result = look(tmp_path, base=base)
    assert model_store.find(result.uri) is None
    assert result.get_string_custom_property("reason") == "nothing is in production yet"
    assert Path(result.uri, NO_BASELINE_FILE).is_file()


def test_an_empty_folder_with_a_higher_number_is_no_version(tmp_path: Path) -> None:
    """The server goes on with the older model, so a candidate is compared with that."""
    lay(tmp_path / "serving" / "9", b"old")
    (tmp_path / "serving" / "2000000000").mkdir()
    result = look(tmp_path)
    assert result.get_string_custom_property("version") == "9"
    folder = model_store.find(result.uri)
    assert folder is not None
    assert Path(folder, "saved_model.pb").read_bytes() == b"old"


def test_the_fingerprint_tells_names_and_contents_apart(tmp_path: Path) -> None:
    lay(tmp_path / "a", b"graph")
    lay(tmp_path / "b", b"graph")
    assert model_store.fingerprint(str(tmp_path / "a")) == model_store.fingerprint(str(tmp_path / "b"))
    (tmp_path / "b" / "variables").write_bytes(b"")
    assert model_store.fingerprint(str(tmp_path / "a")) != model_store.fingerprint(str(tmp_path / "b"))
