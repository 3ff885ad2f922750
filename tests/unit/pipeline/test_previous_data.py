"""Which data a run is compared with: the newest other ones of the same name that were let through."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from components.shared.dataset_facts import DatasetFacts
from components.shared.image_facts import BINS, IMAGE_FACTS, SplitFacts
from pipeline import config as config_module
from pipeline.cli.run import dataset_name
from pipeline.config import PipelineConfig
from pipeline.previous_data import with_previous_data

SPLIT = SplitFacts(2, (1, 1), 0, 0, dict.fromkeys(IMAGE_FACTS, (0,) * BINS))


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    return config_module.with_settings(
        PipelineConfig(), [f"root={tmp_path}", "data.dataset=digits", "data.fingerprint=new"]
    )


def leave(config: PipelineConfig, execution: int, fingerprint: str, dataset: str = "digits") -> Path:
    """What DataGate leaves of data that it let through."""
    folder = config.pipeline_root / "DataGate" / "blessing" / str(execution)
    folder.mkdir(parents=True)
    facts = DatasetFacts(dataset, fingerprint, {"train": SPLIT}, {}, {})
    (folder / "facts.json").write_text(facts.to_json())
    return folder


def test_the_first_data_have_nothing_before_them(config: PipelineConfig) -> None:
    assert with_previous_data(config) == config


def test_the_newest_other_data_of_the_same_name(config: PipelineConfig) -> None:
    leave(config, 9, "older")
    before = leave(config, 20, "old")
    leave(config, 30, "new")
    leave(config, 40, "another", dataset="letters")
    (leave(config, 50, "half") / "facts.json").write_text(json.dumps({"dataset": "digits"}))
    found = with_previous_data(config).data_gate
    assert found.previous == str(before)
    content = (before / "facts.json").read_bytes()
    assert found.previous_fingerprint == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("setting", ["data_gate.drift=false", "data_gate.previous=minio://facts"])
def test_who_chose_is_obeyed(config: PipelineConfig, setting: str) -> None:
    leave(config, 9, "old")
    config = config_module.with_settings(config, [setting])
    assert with_previous_data(config) == config


def test_folders_without_a_name_are_no_versions_of_each_other() -> None:
    first, second = (dataset_name(None, Path(folder)) for folder in ("a/data", "b/data"))
    assert first != second
    assert dataset_name("digits", Path("a/data")) == "digits"
    assert dataset_name(None, None) is None
