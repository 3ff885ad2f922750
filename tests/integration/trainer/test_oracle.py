"""Trainings beside the real tf.estimator's, as recorded: see tests/oracle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.oracle import cnn_mnist, inputs, ours
from trainer import model

RECORDED = json.loads((Path(ours.__file__).parent / "estimator_oracle.json").read_text())["training"]


@pytest.mark.filterwarnings("ignore:.*deprecated.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*will be removed.*:UserWarning")
@pytest.mark.parametrize(
    "model_fn", [cnn_mnist.cnn_model_fn, model.model_fn], ids=["tensorflow 1's style", "native"]
)
def test_twenty_steps_are_the_real_estimators(model_fn: Callable[..., Any]) -> None:
    done = ours.trained(inputs.make(), 20, model_fn)

    # Kernels round differently from processor to processor, and training makes more of it with each step.
    np.testing.assert_allclose(done["losses"][:8], RECORDED["losses"][:8], atol=1e-5)
    np.testing.assert_allclose(done["losses"], RECORDED["losses"], rtol=0.01)
    assert done["global_step"] == RECORDED["evaluation"]["global_step"] == 20
    assert done["classes"] == RECORDED["classes"]
    assert done["evaluation"]["accuracy"] == RECORDED["evaluation"]["accuracy"]
    # Theirs is the mean of batches' means, ours of examples: the last batch has 10 of 20.
    assert done["evaluation"]["loss"] == pytest.approx(RECORDED["evaluation"]["loss"], rel=0.1)
