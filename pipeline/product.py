"""What the product is called. A fork changes this file, and the same two names in pyproject.toml.

docs/fork.md has the steps; everything else takes its names from here.
"""

from __future__ import annotations

# The command, the pipeline, the served model, and the first word of each error message.
NAME = "mnist"
# The Python distribution, as in pyproject.toml, and the image of the steps.
DISTRIBUTION = f"{NAME}-tfx"
# As in pyproject.toml; steps in the image have no installed distribution to ask.
VERSION = "0.2.0"
# What is fetched and trained on where no other data are named: see pipeline/datasets/catalogue.py.
DATASET = "mnist"
# What `--help` begins with.
SUMMARY = "MNIST from IDX files to a served model: one TFX pipeline, here or on Kubeflow."
