"""The curated schema: what every example must look like."""

from __future__ import annotations

from pathlib import Path

SCHEMA_FILE = Path(__file__).parent / "schema.pbtxt"


def schema_text(num_classes: int) -> str:
    """The schema as a text proto, with the label's range set to 0 … num_classes - 1."""
    return SCHEMA_FILE.read_text().replace("NUM_CLASSES_MINUS_1", str(num_classes - 1))
