"""IdxExampleGen: IDX files to tf.Examples in the splits train, validation and test.

The component is found here on first use: TFX takes seconds to import, and `idx` does without it.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "IdxExampleGen":
        from components.idx_example_gen.component import IdxExampleGen

        return IdxExampleGen
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
