"""Trainings beside the real tf.estimator's, as recorded: see tests/oracle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.oracle import ours

RECORDED = json.loads((Path(ours.__file__).parent / "estimator_oracle.json").read_text())["training"]


_TRAIN = """
import json
from tests.oracle import cnn_mnist, inputs, ours
from trainer import model
print(json.dumps(ours.trained(inputs.make(), 20, {model_fn})))
"""
# oneDNN's kernels for AVX-512 round differently, which grows with each step: to 0.3 % of a loss after 14.
_SAME_KERNELS = {"ONEDNN_MAX_CPU_ISA": "AVX2"}


@pytest.mark.parametrize(
    "model_fn", ["cnn_mnist.cnn_model_fn", "model.model_fn"], ids=["tensorflow 1's style", "native"]
)
def test_twenty_steps_are_the_real_estimators(model_fn: str) -> None:
    # In a process of its own: oneDNN chooses its kernels once.
    command = [sys.executable, "-c", _TRAIN.format(model_fn=model_fn)]
    printed = subprocess.run(command, env=os.environ | _SAME_KERNELS, check=True, stdout=subprocess.PIPE)
    done = json.loads(printed.stdout.splitlines()[-1])

    np.testing.assert_allclose(done["losses"], RECORDED["losses"], atol=1e-5)
    assert done["global_step"] == RECORDED["evaluation"]["global_step"] == 20
    assert done["classes"] == RECORDED["classes"]
    assert done["evaluation"]["accuracy"] == RECORDED["evaluation"]["accuracy"]
    # Theirs is the mean of batches' means, ours of examples: the last batch has 10 of 20.
    assert done["evaluation"]["loss"] == pytest.approx(RECORDED["evaluation"]["loss"], rel=0.1)
