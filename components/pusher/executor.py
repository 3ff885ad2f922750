"""Pusher: work."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfx.components.pusher.executor import Executor as TfxExecutor
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import proto_utils

from components.shared import model_store, names
from components.shared.training_facts import TrainingFacts

logger = logging.getLogger(__name__)


class StaleVerdictError(RuntimeError):
    """What is in production came there after the model was compared with another version."""


class Executor(TfxExecutor):
    """Copies the model next to the versions, then renames it into place.

    TFX's executor copies straight into the version folder, which a server may open half full and a
    killed run leaves so; and it asks nobody what is in production by then.
    """

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Push a blessed model; the version is a timestamp, later than every version that is there.

        Without a destination, the artifact alone holds the model, in a version folder, so that a server
        can be pointed at the artifact's URI. What is the newest version already is not pushed again. A
        version holds the facts of its training: see TrainingFacts.

        Raises:
            StaleVerdictError: where the newest version is another one than the model was compared with.
        """
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], destination)
        base, model = destination.filesystem.base_directory, self.GetModelPath(input_dict)
        blessing, evaluation = (
            Path(artifact_utils.get_single_uri(input_dict[key])) for key in ("data_blessing", "evaluation")
        )
        added = {model_store.TRAINING_FACTS: TrainingFacts.gather(blessing, evaluation).to_json()}
        if base:
            baseline = artifact_utils.get_single_instance(input_dict["baseline_model"])
            with _alone(Path(base)):
                version = _pushed_already(model, base) or _push(model, base, baseline, added)
        else:
            version = model_store.write(model, pushed.uri, added)
        self._MarkPushed(pushed, pushed_destination=str(version.folder), pushed_version=version.folder.name)


def _pushed_already(model: str, base: str) -> model_store.Version | None:
    newest = model_store.newest(base)
    if newest is None or model_store.fingerprint(newest.folder) != model_store.fingerprint(model):
        return None
    logger.info("version %d is this model already", newest.number)
    return newest


def _push(model: str, base: str, baseline: Artifact, added: dict[str, str]) -> model_store.Version:
    """Write a version, unless another one came in between.

    What a baseline artifact says of its version was in production when BaselineModel looked; one that a
    setting named, or that was imported, was not taken from production, and says nothing about it.
    """
    newest = model_store.newest(base)
    compared, reason = (baseline.get_string_custom_property(key) for key in (names.VERSION, names.REASON))
    expected = {int(compared)} if compared else {None} if reason else set()
    found = newest.number if newest else None
    if expected and not baseline.get_int_custom_property(names.PINNED) and found not in expected:
        raise StaleVerdictError(
            f"version {found or 'none'} is in production now, but the model was compared with "
            f"{f'version {compared}' if compared else 'none'}: run again, it is then judged again"
        )
    return model_store.write(model, base, added)


@contextmanager
def _alone(base: Path) -> Iterator[None]:
    """Let one process at a time look at what is newest and push, in all pods that mount the volume."""
    base.parent.mkdir(parents=True, exist_ok=True)
    # Next to the folder: in it there are only versions.
    with (base.parent / f".{base.name}.push-lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
