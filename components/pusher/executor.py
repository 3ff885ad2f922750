"""Pusher: work."""

from __future__ import annotations

from typing import Any

from tfx.components.pusher.executor import Executor as TfxExecutor
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import proto_utils

from components.shared import model_store


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
        """Push a blessed model; the version is a timestamp, later than every version that is there.

        Without a destination, the artifact alone holds the model, in a version folder, so that a server
        can be pointed at the artifact's URI.
        """
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], destination)
        base = destination.filesystem.base_directory or pushed.uri
        version = model_store.write(self.GetModelPath(input_dict), base)
        self._MarkPushed(pushed, pushed_destination=str(version.folder), pushed_version=version.folder.name)
