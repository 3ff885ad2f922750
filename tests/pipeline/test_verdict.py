"""The verdict: what TFMA measured and refused, read back from its own files."""

from __future__ import annotations

import pandas as pd
import pytest
import tensorflow_model_analysis as tfma

from pipeline import evaluation, local, verdict
from pipeline.config import GatesConfig
from trainer import features

# Class 0: 3 of 4 right; class 1: 1 of 2 right; class 2: all 4 right. Overall 8 of 10.
LABELS = [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
CLASSES = [0, 0, 0, 2, 1, 0, 2, 2, 2, 2]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An evaluation folder with gates of 0.9 overall and 0.6 for each class."""
    import tfx.components  # noqa: F401 (completes TFMA's public names)

    local.pin_beam_to_this_process()
    folder = str(tmp_path_factory.mktemp("evaluation"))
    config = evaluation.eval_config(GatesConfig(accuracy=0.9, class_accuracy=0.6))
    frame = pd.DataFrame(
        {
            features.LABEL: LABELS,
            features.PROBABILITIES: [[float(k == c) for k in range(3)] for c in CLASSES],
        }
    )
    config.model_specs[0].signature_name = ""  # There is no model: the answers are in the frame.
    tfma.analyze_raw_data(frame, config, output_path=folder)
    return folder


def test_accuracies_and_failures(judged: str) -> None:
    found = verdict.read(judged)
    assert found.accuracy == pytest.approx(0.8)
    assert found.class_accuracy == pytest.approx({0: 0.75, 1: 0.5, 2: 1.0})
    assert found.examples == 10
    assert found.weakest_class == 1
    assert not found.blessed
    assert [str(gate) for gate in found.failed] == [
        "accuracy overall is 0.8000, 0.1000 below the gate of 0.9000",
        "accuracy of class 1 is 0.5000, 0.1000 below the gate of 0.6000",
    ]
