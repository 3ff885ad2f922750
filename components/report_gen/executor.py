"""ReportGen: work."""

from __future__ import annotations

import json
import logging
import time
from pathlib import PurePath
from typing import Any

from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

from components.report_gen import evidence, findings, page
from components.shared import names

logger = logging.getLogger(__name__)


class Executor(BaseExecutor):
    """Reads what the nodes left, and writes the page: it measures nothing itself."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the `report` artifact: the page, and its figures as JSON for programs."""
        began_cpu_s = time.process_time()
        found = evidence.collect(input_dict, exec_properties["model_name"], exec_properties["recipe"])
        results = findings.find(found)
        folder = PurePath(artifact_utils.get_single_uri(output_dict["report"]))
        html = page.render(found, results)
        io_utils.write_string_file(str(folder / names.REPORT_FILE), html)
        io_utils.write_string_file(
            str(folder / names.SUMMARY_FILE), json.dumps(findings.summary(found, results), indent=2)
        )
        logger.info("report of %d kB, %.1f s of CPU", len(html) // 1000, time.process_time() - began_cpu_s)
