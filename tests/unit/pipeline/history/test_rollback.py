"""Rollback: an earlier version is the newest again, whole or not at all, and ML Metadata knows."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli.main import main
from pipeline.config import PipelineConfig, with_settings
from pipeline.history import rollback
from pipeline.history.records import History
from pipeline.local.lock import BusyError, exclusive
from serving.models.loader import find_versions

FUTURE = int(time.time()) + 10**6  # pushed when the clock was wrong


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    """A pipeline that pushed 100, 200 and, with a wrong clock, one from the future."""
    config = with_settings(PipelineConfig(), [f"root={tmp_path}"])
    for version in (100, 200, FUTURE):
        folder = config.serving_dir / str(version)
        (folder / "variables").mkdir(parents=True)
        (folder / "saved_model.pb").write_text(f"graph {version}")
        (folder / "variables" / "variables.index").touch()
        (folder / "variables" / "variables.data-00000-of-00001").write_text(f"weights {version}")
    (config.serving_dir / "300").mkdir()  # no model in it: servers wait for one
    return config


def test_the_version_before_the_newest_becomes_the_newest(config: PipelineConfig) -> None:
    done = rollback.roll_back(config)
    assert (done.copy_of, done.newest_before, done.version) == (200, FUTURE, FUTURE + 1)
    assert (done.folder / "saved_model.pb").read_text() == "graph 200"
    assert (done.folder / "variables" / "variables.data-00000-of-00001").read_text() == "weights 200"
    found = find_versions(config.serving_dir)
    assert found is not None
    assert found[max(found)] == done.folder, "this is what a server serves"
    assert sorted(found) == [100, 200, FUTURE, FUTURE + 1]


def test_it_is_a_run_that_says_where_the_model_comes_from(config: PipelineConfig) -> None:
    first = rollback.roll_back(config, 100)
    second = rollback.roll_back(config, first.newest_before)
    newest, older = History(config).runs()
    assert (newest.id, older.id) == (second.run_id, first.run_id)
    assert (older.verdict, older.pushed_version) == ("rolled back to 100", str(first.version))
    (node,) = older.nodes
    assert node.state == "done"
    assert [a.uri for a in node.inputs] == [str(config.serving_dir / "100")]
    assert [a.uri for a in node.outputs] == [str(first.folder)]
    again = rollback.roll_back(config, first.version)
    (node,) = History(config).find(again.run_id).nodes
    assert node.inputs[0].id == older.nodes[0].outputs[0].id, "what was pushed is the same artifact"


def test_a_rollback_that_fails_half_way_shows_nothing_and_the_next_one_works(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = find_versions(config.serving_dir)
    fsync, left = os.fsync, iter(range(2))

    def disk_full(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk_full)
        with pytest.raises(OSError, match="No space left"):
            rollback.roll_back(config)
    assert find_versions(config.serving_dir) == before
    assert all(path.name.isdecimal() for path in config.serving_dir.iterdir())
    assert History(config).find(None).verdict == "failed in Rollback"
    assert rollback.roll_back(config).copy_of == 200


def test_it_does_not_push_while_a_run_may(config: PipelineConfig) -> None:
    with exclusive(config.pipeline_root), pytest.raises(BusyError, match="in progress"):
        rollback.roll_back(config)


@pytest.mark.parametrize(
    ("present", "argument", "said"),
    [
        ((), [], "no model was pushed there yet"),
        ((5,), [], "version 5 is the only one"),
        ((5, 7), ["6"], "there is no version 6; there are 5, 7"),
        ((5, 7), ["7"], "version 7 is the newest already"),
    ],
)
def test_what_cannot_be_is_one_line(
    present: tuple[int, ...], argument: list[str], said: str, tmp_path: Path
) -> None:
    for version in present:
        folder = tmp_path / "serving" / "mnist" / str(version)
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()
    done = CliRunner().invoke(main, ["rollback", *argument, "--root", str(tmp_path)])
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "pipelines").exists()


def test_the_command_says_what_it_did_and_runs_shows_it(config: PipelineConfig) -> None:
    root = ["--root", str(config.root)]
    done = CliRunner().invoke(main, ["rollback", "100", *root])
    assert done.exit_code == 0, done.output
    assert f"version {FUTURE + 1} is a copy of 100, and newer than {FUTURE}" in done.stdout
    listed = json.loads(CliRunner().invoke(main, ["runs", "--json", *root]).stdout)
    assert [(run["verdict"], run["pushed_version"]) for run in listed] == [
        ("rolled back to 100", str(FUTURE + 1))
    ]
    shown = json.loads(CliRunner().invoke(main, ["runs", "show", "--json", *root]).stdout)
    assert [node["node"] for node in shown["nodes"]] == ["Rollback"]
