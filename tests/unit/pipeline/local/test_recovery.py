"""Recovery: one run at a time, and what a killed run left is cleaned up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata

from pipeline.config import SCRATCH
from pipeline.local import lock, recovery
from trainer.features import CHECKPOINT_FOLDER


def test_a_second_run_of_the_same_pipeline_is_refused(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib\nfrom pipeline.local import lock\n"
            "with lock.exclusive(pathlib.Path(sys.argv[1])):\n print('held', flush=True)\n input()",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline().strip().endswith("held")
    with pytest.raises(lock.BusyError, match=f"process {holder.pid}"), lock.exclusive(tmp_path):
        pass
    holder.kill()  # The lock must not outlive its holder, however that ended.
    holder.communicate()
    with lock.exclusive(tmp_path):
        pass


def test_mend_cancels_what_was_running_and_keeps_what_was_done(tmp_path: Path) -> None:
    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.db"))
    root = tmp_path / "pipelines" / "p"
    states = metadata_store_pb2.Execution
    with metadata.Metadata(connection) as handle:
        store = handle.store
        type_id = store.put_execution_type(metadata_store_pb2.ExecutionType(name="Node"))
        context_type = store.put_context_type(metadata_store_pb2.ContextType(name="pipeline"))
        contexts = [metadata_store_pb2.Context(type_id=context_type, name=name) for name in ("p", "other")]
        ours, others = store.put_contexts(contexts)
        executions = [
            states(type_id=type_id, last_known_state=s) for s in (states.COMPLETE, states.RUNNING)
        ]
        done, running = store.put_executions(executions)
        (foreign,) = store.put_executions([states(type_id=type_id, last_known_state=states.RUNNING)])
        store.put_attributions_and_associations(
            [],
            [
                metadata_store_pb2.Association(execution_id=execution, context_id=context)
                for execution, context in ((done, ours), (running, ours), (foreign, others))
            ],
        )
    checkpoint = root / f"Node/run/{running}" / CHECKPOINT_FOLDER / "checkpoint.npz"
    for folder in (
        f"Node/out/{done}",
        f"Node/out/{running}",
        f"Node/.system/executor_execution/{running}",
        f"Node/run/{running}/train",
        f"{SCRATCH}/a-killed-run",
    ):
        (root / folder).mkdir(parents=True)
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert recovery.clean_up(connection, "p", root) == [running]
    assert recovery.clean_up(connection, "p", root) == []
    with metadata.Metadata(connection) as handle:
        found = handle.store.get_executions_by_id([done, running, foreign])
    by_id = {execution.id: execution.last_known_state for execution in found}
    assert by_id == {done: states.COMPLETE, running: states.CANCELED, foreign: states.RUNNING}
    assert [p.name for p in root.glob("Node/out/*")] == [str(done)]
    assert not list(root.glob("Node/.system/executor_execution/*"))
    assert not list(root.glob(f"{SCRATCH}/*"))
    assert [p for p in root.glob("Node/run/**/*") if p.is_file()] == [checkpoint], "the next run wants it"
    assert not (root / f"Node/run/{running}/train").exists()


def test_what_somebody_deleted_is_no_longer_taken_from_the_cache(tmp_path: Path) -> None:
    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.db"))
    root, serving = tmp_path / "pipelines" / "p", tmp_path / "serving"
    kept, emptied, pushed, unpushed, refused = (
        root / "Node" / name / "1" for name in ("kept", "emptied", "pushed", "unpushed", "refused")
    )
    elsewhere = tmp_path / "elsewhere"
    for folder in (kept, emptied / "inner", pushed, unpushed, refused, elsewhere, serving / "10"):
        folder.mkdir(parents=True)
    for folder in (kept, unpushed):  # where a model is pushed to a folder, the artifact itself is empty
        (folder / "file").touch()
    with metadata.Metadata(connection) as handle:
        store = handle.store
        type_id = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="Thing"))
        context_type = store.put_context_type(metadata_store_pb2.ContextType(name="pipeline"))
        (context,) = store.put_contexts([metadata_store_pb2.Context(type_id=context_type, name="p")])
        artifacts = []
        for folder in (kept, emptied, pushed, unpushed, refused, elsewhere):
            artifact = metadata_store_pb2.Artifact(type_id=type_id, uri=str(folder))
            if folder in (pushed, unpushed):
                version = serving / ("10" if folder == pushed else "11")
                artifact.custom_properties["pushed"].int_value = 1
                artifact.custom_properties["pushed_destination"].string_value = str(version)
            elif folder == refused:
                artifact.custom_properties["pushed"].int_value = 0
            artifacts.append(artifact)
        ids = store.put_artifacts(artifacts)
        store.put_attributions_and_associations(
            [metadata_store_pb2.Attribution(artifact_id=i, context_id=context) for i in ids], []
        )
    assert set(recovery.forget_lost(connection, "p", root)) == {str(emptied), str(unpushed)}
    assert recovery.forget_lost(connection, "p", root) == []
    assert {path.name for path in root.glob("Node/*") if list(path.iterdir())} == {
        "kept",
        "pushed",
        "refused",
    }
    assert elsewhere.is_dir(), "what is not below the root is not touched"
