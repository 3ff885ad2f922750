"""The data before these: whose facts DataGate compares with, so that drift is seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from components.shared.dataset_facts import FACTS_FILE, DatasetFacts
from pipeline.config import PipelineConfig

_BLESSINGS = (
    f"DataGate/blessing/*/{FACTS_FILE}"  # below the pipeline's root; the folder is the execution's id
)


def with_previous_data(config: PipelineConfig) -> PipelineConfig:
    """The config with the newest other data that DataGate let through, unless it names some already.

    Other data: of the same name, with another fingerprint. So the same data are compared with the same
    predecessor however often they run, and the cache knows them again.
    """
    if config.data_gate.previous or not config.data_gate.drift:
        return config
    for path in _newest_first(config.pipeline_root):
        content = path.read_bytes()
        try:
            facts = DatasetFacts.from_json(content.decode())
        except ValueError:
            continue  # half written when the machine went down, or by another version
        if facts.dataset == config.data.dataset and facts.fingerprint != config.data.fingerprint:
            return config.replace(
                "data_gate",
                previous=str(path.parent),
                previous_fingerprint=hashlib.sha256(content).hexdigest(),
            )
    return config


def _newest_first(pipeline_root: Path) -> Iterator[Path]:
    yield from sorted(pipeline_root.glob(_BLESSINGS), key=lambda path: int(path.parent.name), reverse=True)
