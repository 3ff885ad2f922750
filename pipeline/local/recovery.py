"""What a killed run left half done is cleaned up before the next one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2

from pipeline.config import SCRATCH, PipelineConfig
from pipeline.history.connection import connection_config
from trainer.features import CHECKPOINT_FOLDER

_UNFINISHED = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)


def clean_up(
    connection: metadata_store_pb2.ConnectionConfig, pipeline_name: str, pipeline_root: Path
) -> list[int]:
    """Cancel executions that a killed run left unfinished and remove what it had written.

    Call it under `lock.exclusive`: whatever is still marked as running then cannot be.

    Returns:
        The ids of those executions.
    """
    for folder in pipeline_root.glob(f"{SCRATCH}/*"):
        if folder != Path(tempfile.gettempdir()):  # that of this very run
            shutil.rmtree(folder, ignore_errors=True)
    store = MetadataStore(connection)
    context = store.get_context_by_type_and_name("pipeline", pipeline_name)
    if context is None:
        return []
    stale = [
        execution
        for execution in store.get_executions_by_context(context.id)
        if execution.last_known_state in _UNFINISHED
    ]
    for execution in stale:
        # An execution's folders all end in its id: <node>/<output>/<id>, <node>/.system/…/<id>.
        for pattern in (f"*/*/{execution.id}", f"*/.system/*/{execution.id}"):
            for folder in pipeline_root.glob(pattern):
                _remove_all_but_checkpoints(folder)
        execution.last_known_state = metadata_store_pb2.Execution.CANCELED
    if stale:
        store.put_executions(stale)
    return [execution.id for execution in stale]


def forget_lost(
    connection: metadata_store_pb2.ConnectionConfig, pipeline_name: str, pipeline_root: Path
) -> list[str]:
    """Make nodes run again whose results were deleted: they are no longer taken from the cache.

    TFX's cache looks whether an artifact's folder is there; so the folder of one that was emptied goes, and
    that of a pushed model whose version is gone from where it was pushed to.

    Returns:
        The folders that went.
    """
    store = MetadataStore(connection)
    context = store.get_context_by_type_and_name("pipeline", pipeline_name)
    lost = []
    for artifact in store.get_artifacts_by_context(context.id) if context else []:
        folder = Path(artifact.uri)
        if folder.is_dir() and is_lost(artifact, pipeline_root):
            shutil.rmtree(folder)
            lost.append(str(folder))
    return lost


def is_lost(artifact: metadata_store_pb2.Artifact, pipeline_root: Path) -> bool:
    """Whether what a node wrote below the pipeline's root is no longer there, in part or as a whole."""
    folder = Path(artifact.uri)
    if not folder.is_relative_to(pipeline_root):
        return False
    if not folder.is_dir():
        return True
    said = artifact.custom_properties
    if "pushed" in said and not said["pushed"].int_value:
        return False  # a refused model's artifact is empty
    if "pushed_destination" in said:
        # The model is there alone. One in a bucket, say, is not looked for.
        pushed = Path(said["pushed_destination"].string_value)
        return pushed.is_absolute() and not pushed.is_dir()
    return not any(path.is_file() for path in folder.rglob("*"))


def _remove_all_but_checkpoints(folder: Path) -> None:
    # A Trainer takes them up, whatever becomes of the execution.
    if not (folder / CHECKPOINT_FOLDER).is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.name != CHECKPOINT_FOLDER:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def clean_up_in_new_process(config: PipelineConfig) -> None:
    """Replace this process, with all its threads, by one that repairs and exits with 130.

    A node runs in a thread that cannot be stopped; only then is it sure to write nothing more.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # Nothing is left to say, and TensorFlow's import is not quiet.
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    arguments = [
        connection_config(config).SerializeToString().hex(),
        config.name,
        str(config.pipeline_root),
    ]
    os.execv(sys.executable, [sys.executable, "-m", "pipeline.local.recovery", *arguments])


def main() -> None:
    """Repair, as the last act of an interrupted run."""
    tempfile.tempdir = os.path.curdir  # The run's own scratch folder goes too.
    connection_hex, name, root = sys.argv[1:]
    connection = metadata_store_pb2.ConnectionConfig.FromString(bytes.fromhex(connection_hex))
    clean_up(connection, name, Path(root))
    sys.exit(130)


if __name__ == "__main__":
    main()
