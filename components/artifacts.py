"""Artifact types of this project's own components."""

from __future__ import annotations

from tfx.types.artifact import Artifact


class Images(Artifact):
    """A folder of labelled images: see components.image_example_gen.sources.

    Kubeflow finds the class again by its type name, `<top module>.<Class>`, so `components` exports it.
    """

    TYPE_NAME = "components.Images"


class DataBlessing(Artifact):
    """Says that the examples fit the schema; the custom property `blessed` is 1."""

    TYPE_NAME = "components.DataBlessing"


class Report(Artifact):
    """A page about a run: `report.html`, and its figures in `summary.json`."""

    TYPE_NAME = "components.Report"


class Metrics(Artifact):
    """Numbers by name, as custom properties; the name is Kubeflow's, whose page shows such artifacts."""

    TYPE_NAME = "system.Metrics"


class ClassificationMetrics(Artifact):
    """A confusion matrix in the custom property `confusionMatrix`; the name is Kubeflow's, as above."""

    TYPE_NAME = "system.ClassificationMetrics"
