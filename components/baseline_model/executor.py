"""BaselineModel: work."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, path_utils

from components.shared import model_store, names

logger = logging.getLogger(__name__)


class Executor(BaseExecutor):
    """Copies the version that is served, or says why there is none."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the `result` artifact.

        Raises:
            ValueError: where a version was asked for and is not there.
        """
        result = artifact_utils.get_single_instance(output_dict["result"])
        base, version = exec_properties["base_directory"], exec_properties["version"]
        known = model_store.versions(base) if base else []
        chosen = [each for each in known if version in ("", each.folder.name)]
        served = chosen[-1] if chosen else None
        if version and served is None:
            raise ValueError(f"there is no version {version} in {base}")
        reason = "nothing is in production yet"
        if served and not version and _equal(served, input_dict["candidate"]):
            reason = f"the model is in production itself, as version {served.folder.name}"
        elif served:
            io_utils.copy_dir(str(served.folder), path_utils.serving_model_dir(result.uri))
            result.set_string_custom_property(names.VERSION, served.folder.name)
            result.set_int_custom_property(names.PINNED, int(bool(version)))
            logger.info("the baseline is version %d", served.number)
            return
        # A store of objects knows no empty folders.
        io_utils.write_string_file(str(Path(result.uri, names.NO_BASELINE_FILE)), reason)
        result.set_string_custom_property(names.REASON, reason)
        logger.info("no baseline: %s", reason)


def _equal(served: model_store.Version, candidate: list[Artifact]) -> bool:
    folder = model_store.find(artifact_utils.get_single_uri(candidate))
    return folder is not None and model_store.fingerprint(served.folder) == model_store.fingerprint(folder)
