"""When a verdict from the cache no longer speaks of what is in production."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from pipeline.local.production import outdated

Event = mlmd.Event


class Runs:
    """Runs as ML Metadata has them after A was pushed as version 1 and B, compared with 1, as version 2."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "serving"
        config = mlmd.ConnectionConfig()
        config.sqlite.filename_uri = str(folder / "metadata.db")
        self.store = MetadataStore(config)
        self.a, self.b = self.artifact("Model"), self.artifact("Model")
        self.judged(self.a, version="", reason="nothing is in production yet")
        self.pushed(self.a, "1")
        self.judged(self.b, version="1")
        self.pushed(self.b, "2")

    def artifact(self, kind: str, **properties: str) -> mlmd.Artifact:
        type_id = self.store.put_artifact_type(mlmd.ArtifactType(name=kind))
        made = mlmd.Artifact(type_id=type_id)
        for name, value in properties.items():
            made.custom_properties[name].string_value = value
        (made.id,) = self.store.put_artifacts([made])
        return made

    def execution(self, kind: str, given: mlmd.Artifact | None, made: mlmd.Artifact) -> None:
        type_id = self.store.put_execution_type(mlmd.ExecutionType(name=kind))
        pairs = [(made, Event(type=Event.OUTPUT))]
        pairs += [(given, Event(type=Event.INPUT))] if given else []
        self.store.put_execution(mlmd.Execution(type_id=type_id), pairs, [])

    def judged(self, candidate: mlmd.Artifact, **baseline: str) -> None:
        self.execution("BaselineModel", candidate, self.artifact("Model", **baseline))

    def pushed(self, candidate: mlmd.Artifact | None, version: str, by: str = "Pusher") -> None:
        folder = self.base / version
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()
        self.execution(by, candidate, self.artifact("PushedModel", pushed_version=version))

    def outdated(self, candidate: mlmd.Artifact) -> bool:
        return outdated(self.store, candidate.id, str(self.base))


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_a_after_b_is_judged_anew_and_then_once(runs: Runs) -> None:
    assert runs.outdated(runs.a)
    assert not runs.outdated(runs.b)
    runs.judged(runs.a, version="2")  # and refused
    assert not runs.outdated(runs.a)


def test_a_rollback_is_not_undone_by_a_run_with_nothing_changed(runs: Runs) -> None:
    runs.pushed(None, "3", by="Rollback")
    assert not runs.outdated(runs.b)


def test_what_another_pipeline_pushed_is_compared_with(runs: Runs) -> None:
    (runs.base / "3").mkdir()
    (runs.base / "3" / "saved_model.pb").touch()
    assert runs.outdated(runs.a)
    assert runs.outdated(runs.b)


def test_without_production_or_before_the_first_verdict_nothing_is_outdated(runs: Runs) -> None:
    assert not runs.outdated(runs.artifact("Model"))
    assert not outdated(runs.store, runs.a.id, "")
    assert not outdated(runs.store, runs.a.id, str(runs.base / "none"))
