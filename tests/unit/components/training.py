"""What the Pusher is told of a model's training, of three images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact

from components.artifacts import DataBlessing
from components.shared import answers
from components.shared.dataset_facts import FACTS_FILE, DatasetFacts
from components.shared.image_facts import Collector
from trainer import features


def training(folder: Path) -> dict[str, list[Artifact]]:
    """Inputs of the Pusher, below `folder`; two images are of class 0, one of class 1."""
    blessing, evaluation = DataBlessing(), standard_artifacts.ModelEvaluation()
    labels = np.array([0, 1, 0])
    collector = Collector(2)
    collector.add(np.zeros((3, 2, 2), np.uint8), labels, 0)
    facts = DatasetFacts("three", "", {features.TRAIN: collector.facts()}, {}, {})
    for artifact, name in ((blessing, "data_blessing"), (evaluation, "evaluation")):
        artifact.uri = str(folder / name)
        Path(artifact.uri).mkdir(parents=True, exist_ok=True)
    Path(blessing.uri, FACTS_FILE).write_text(facts.to_json())
    with answers.writing(evaluation.uri, 0, 1) as writer:
        writer.write(["a", "b", "c"], labels, np.full((3, 2), 0.5, np.float32))
    return {"data_blessing": [blessing], "evaluation": [evaluation]}
