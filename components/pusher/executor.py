"""Pusher: work."""

from __future__ import annotations

import time
from pathlib import PurePath
from typing import Any

from tfx.components.pusher.executor import Executor as TfxExecutor
from tfx.dsl.io import fileio
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, proto_utils

# Servers look at numeric names alone, so what is half copied below this name is never loaded.
STAGING = ".pushing"


class Executor(TfxExecutor):
    """Copies the model beside the versions, then renames it into place.

    TFX's executor copies straight into the version folder, which a server may open half full and a
    killed run leaves so.
    """

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Push as TFX does; the version is a timestamp, later than every version that is there.

        Without a destination, the artifact alone holds the model, in a version folder, so that a server
        can be pointed at the artifact's URI.
        """
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], destination)
        base = destination.filesystem.base_directory
        if not base:
            self._push_to_artifact(input_dict, output_dict)
            return
        staging = str(PurePath(base) / STAGING)
        if fileio.exists(staging):  # of a run that was killed
            fileio.rmtree(staging)
        destination.filesystem.base_directory = staging
        super().Do(
            input_dict,
            output_dict,
            exec_properties | {"push_destination": proto_utils.proto_to_json(destination)},
        )
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not pushed.get_int_custom_property("pushed"):
            return
        staged = pushed.get_string_custom_property("pushed_version")
        version = str(max(int(staged), newest_version(base) + 1))
        target = str(PurePath(base) / version)
        fileio.rename(str(PurePath(staging) / staged), target)
        fileio.rmtree(staging)
        self._MarkPushed(pushed, pushed_destination=target, pushed_version=version)

    def _push_to_artifact(
        self, input_dict: dict[str, list[Artifact]], output_dict: dict[str, list[Artifact]]
    ) -> None:
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        version = str(int(time.time()))
        target = str(PurePath(pushed.uri) / version)
        io_utils.copy_dir(self.GetModelPath(input_dict), target)
        self._MarkPushed(pushed, pushed_destination=target, pushed_version=version)


def newest_version(base: str) -> int:
    """The highest numeric folder name below `base`, 0 where there is none."""
    if not fileio.exists(base):
        return 0
    return max((int(name) for name in fileio.listdir(base) if name.rstrip("/").isdigit()), default=0)
