"""One run of a pipeline at a time, and none that leaves half a result behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline

from pipeline.config import SCRATCH
from trainer.features import CHECKPOINT_FOLDER

_UNFINISHED = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)


class BusyError(Exception):
    """Another run of the same pipeline is in progress."""


@contextmanager
def exclusive(pipeline_root: Path) -> Iterator[None]:
    """Hold the pipeline's lock; the system lets it go however the process ends.

    Raises:
        BusyError: when another process holds it.
    """
    pipeline_root.mkdir(parents=True, exist_ok=True)
    with (pipeline_root / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BusyError(
                f"another run of this pipeline is in progress (process {file.read().strip() or '?'}); "
                "wait for it, or use another --root"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def mend(connection: metadata.ConnectionConfigType, pipeline_name: str, pipeline_root: Path) -> list[int]:
    """Cancel executions that a killed run left unfinished and remove what it had written.

    Call it under `exclusive`: whatever is still marked as running then cannot be.

    Returns:
        The ids of those executions.
    """
    for folder in pipeline_root.glob(f"{SCRATCH}/*"):
        if folder != Path(tempfile.gettempdir()):  # that of this very run
            shutil.rmtree(folder, ignore_errors=True)
    with metadata.Metadata(connection) as handle:
        store = handle.store
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


def _remove_all_but_checkpoints(folder: Path) -> None:
    # A Trainer takes them up, whatever becomes of the execution.
    if not (folder / CHECKPOINT_FOLDER).is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.name != CHECKPOINT_FOLDER:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def mend_in_new_process(pipeline: Pipeline) -> None:
    """Replace this process, with all its threads, by one that mends and exits with 130.

    A node runs in a thread that cannot be stopped; only then is it sure to write nothing more.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # Nothing is left to say, and TensorFlow's import is not quiet.
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    arguments = [
        pipeline.metadata_connection_config.SerializeToString().hex(),
        pipeline.pipeline_info.pipeline_name,
        pipeline.pipeline_info.pipeline_root,
    ]
    os.execv(sys.executable, [sys.executable, "-m", "pipeline.recovery", *arguments])


def main() -> None:
    """Mend, as the last act of an interrupted run."""
    tempfile.tempdir = os.path.curdir  # The run's own scratch folder goes too.
    connection_hex, name, root = sys.argv[1:]
    connection = metadata_store_pb2.ConnectionConfig.FromString(bytes.fromhex(connection_hex))
    mend(connection, name, Path(root))
    sys.exit(130)


if __name__ == "__main__":
    main()
