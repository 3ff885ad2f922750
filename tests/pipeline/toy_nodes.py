"""Three small nodes, for tests of the runner: what they do is told to them by a folder of files.

No postponed annotations here: TFX reads the types of a node's function.
"""

import json
import os
import signal
import time
from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import String

from pipeline.isolation import VISIBLE_DEVICES


def _work(name: str, orders: str, output: String) -> None:
    """Say where this ran, then do as `<orders>/<name>` says: raise, die, or be interrupted."""
    here = {"pid": os.getpid(), "visible": os.environ.get(VISIBLE_DEVICES)}
    Path(orders, f"{name}.ran").write_text(json.dumps(here))
    order = Path(orders, name)
    if order.exists():
        if order.read_text() == "die":
            os._exit(9)
        if order.read_text() == "be interrupted in C":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except KeyboardInterrupt:
                raise SystemError("a call returned a result with an exception set") from None
        raise RuntimeError(order.read_text())
    output.value = name


@component
def First(orders: Parameter[str], output: OutputArtifact[String]):  # noqa: N802
    _work("First", orders, output)


@component
def Trainer(orders: Parameter[str], before: InputArtifact[String], output: OutputArtifact[String]):  # noqa: N802
    _work(f"Trainer after {before.value}", orders, output)


@component
def Last(orders: Parameter[str], before: InputArtifact[String], output: OutputArtifact[String]):  # noqa: N802
    _work("Last", orders, output)
    del before
