"""Small nodes, for tests of the runner: what they do is told to them by a folder of files.

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

from pipeline.runtime.gpus import VISIBLE_DEVICES


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
        if order.read_text() == "wait for the Trainer":
            ends_at = time.monotonic() + 20
            while not Path(orders, "Trainer after First.ran").exists():
                if time.monotonic() > ends_at:
                    raise RuntimeError("the Trainer never ran")
                time.sleep(0.01)
        else:
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


@component
def Side(orders: Parameter[str], before: InputArtifact[String], output: OutputArtifact[String]):  # noqa: N802
    _work("Side", orders, output)
    del before


@component
def Join(  # noqa: N802
    orders: Parameter[str],
    before: InputArtifact[String],
    side: InputArtifact[String],
    output: OutputArtifact[String],
):
    _work(f"Join of {before.value} and {side.value}", orders, output)
