"""BaselineModel: work."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, path_utils

from components.pusher.executor import newest_version
from components.shared import model_store

VERSION_PROPERTY, REASON_PROPERTY = "version", "reason"
NO_BASELINE_FILE = "NO_BASELINE"

logger = logging.getLogger(__name__)


class Executor(BaseExecutor):
    """Copies the version that is served, or says why there is none."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],  # noqa: ARG002 (the candidate stands for the cache alone)
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the `result` artifact.

        Raises:
            ValueError: where a version was asked for and is not there.
        """
        result = artifact_utils.get_single_instance(output_dict["result"])
        base, version = exec_properties["base_directory"], exec_properties["version"]
        newest = newest_version(base) if base and not version else 0
        version = version or (str(newest) if newest else "")
        folder = model_store.find(str(Path(base, version))) if version else None
        if folder:
            io_utils.copy_dir(folder, path_utils.serving_model_dir(result.uri))
            result.set_string_custom_property(VERSION_PROPERTY, version)
            logger.info("the baseline is version %s", version)
            return
        if exec_properties["version"]:
            raise ValueError(f"there is no version {version} in {base}")
        reason = f"{base}/{version} holds no SavedModel" if version else "nothing is in production yet"
        # A store of objects knows no empty folders.
        io_utils.write_string_file(str(Path(result.uri, NO_BASELINE_FILE)), reason)
        result.set_string_custom_property(REASON_PROPERTY, reason)
        logger.info("no baseline: %s", reason)
