"""Other files at the place of a base are another base."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer import base_files
from trainer.recipes import resolve


def test_contents_and_names_count_and_not_the_place(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "saved_model.pb").write_text("graph")
        (tmp_path / f"{folder}.keras").write_text("weights")
    (tmp_path / "c" / "saved_model.pb").rename(tmp_path / "c" / "other.pb")
    (tmp_path / "c.keras").write_text("others")

    for ending in ("", ".keras"):
        a, b, c = (base_files.fingerprint(str(tmp_path / f"{name}{ending}"), "") for name in "abc")
        assert a == b != c
    assert base_files.fingerprint("MobileNetV2", "") == base_files.fingerprint("", "") == ""
    weights = str(tmp_path / "a.keras")
    assert base_files.fingerprint("MobileNetV2", weights) == base_files.fingerprint("", weights) != ""


def test_a_training_with_other_files_than_it_was_made_for_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "base.keras"
    file.write_text("weights")
    params = resolve("retrain", base=str(file))
    expected = base_files.fingerprint(str(file), "")

    base_files.check(params, expected)
    base_files.check(params, "")
    read = base_files._digest.cache_info().misses
    base_files.check(params, expected)
    assert base_files._digest.cache_info().misses == read, "an unchanged file is read once"
    for change in (lambda: file.write_text("others"), file.unlink):
        change()
        with pytest.raises(ValueError, match=r"base\.keras is missing here, or another"):
            base_files.check(params, expected)
