"""A step of its own: the fingerprint of the data, computed in the cluster.

`kubeflow.data_changes` puts it before ImageExampleGen. It needs no TFX, and gives the fingerprint on as an
output parameter, which is part of the cache's key of what follows; the URI of the data is all that the
backend looks at otherwise.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from components.image_example_gen.sources import Options, choose
from components.shared.errors import InputError
from kubeflow.entrypoint import ROOT_VARIABLE, local_path

DATASET, FINGERPRINT = "dataset", "fingerprint"


def run_step(executor_input: dict[str, Any], root: str) -> str:
    """Write the fingerprint of the input artifact into the file of the output parameter; returns it.

    Args:
        executor_input: the launcher's message; its parameters are those that ImageExampleGen reads the data
            with: `source`, `options` and `num_classes`.
        root: folder of the launcher's folders.

    Raises:
        InputError: where the data cannot be read; the text names their URI.
    """
    inputs, outputs = executor_input["inputs"], executor_input["outputs"]
    uri = inputs["artifacts"][DATASET]["artifacts"][0]["uri"]
    values = inputs["parameterValues"]
    options = Options(num_classes=int(values["num_classes"]), **json.loads(values["options"] or "{}"))
    found = choose(local_path(uri, root), values["source"], options).inspect().fingerprint
    file = Path(outputs["parameters"][FINGERPRINT]["outputFile"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(found)
    return found


def main() -> None:
    """Run the step on the message that is its argument; exit code 1, with the reason, for bad data."""
    root = os.environ.get(ROOT_VARIABLE, "/")
    try:
        found = run_step(json.loads(sys.argv[1]), root)
    except InputError as error:
        sys.exit(f"the data cannot be read: {error}")
    sys.stdout.write(f"fingerprint of the data: {found}\n")


if __name__ == "__main__":
    main()
