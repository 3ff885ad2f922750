"""What people are told whose model folder holds no version."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.models import folders


@pytest.mark.parametrize(
    ("model_file", "given", "advice"),
    [
        ("m/1/saved_model.pb", "m/1", "give {root}/m"),
        ("m/saved_model.pb", "m", "move that to {root}/m/1"),
        ("m/v1/saved_model.pb", "m", "rename {root}/m/v1"),
        ("all/m/1/saved_model.pb", "all", "give {root}/all/m"),
        ("m/1/saved_model.pbtxt", "m/1", "give {root}/m"),
    ],
)
def test_the_wrong_folder(tmp_path: Path, model_file: str, given: str, advice: str) -> None:
    path = tmp_path / model_file
    path.parent.mkdir(parents=True)
    path.touch()
    assert folders.hint(tmp_path / given).endswith(advice.format(root=tmp_path))


def test_a_folder_that_is_waited_for(tmp_path: Path) -> None:
    assert folders.hint(tmp_path) == ""
    assert folders.hint(tmp_path / "nowhere") == ""
    assert not folders.is_version(tmp_path)
