"""Evaluator: work."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from tfx.components.evaluator import constants
from tfx.components.evaluator.executor import Executor as TfxExecutor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

from components.baseline_model.executor import REASON_PROPERTY, VERSION_PROPERTY
from components.evaluator import dashboard, gates, robustness
from components.evaluator.answers import Classifier, Examples, UnusableModelError, read
from components.shared import model_store
from components.shared.verdict import VERDICT_FILE, Baseline, Robustness, Verdict

MODEL, BASELINE = "model", "baseline_model"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Compared:
    """The baseline's figures, or why there are none."""

    figures: Baseline | None = None
    missing: str = ""


class Executor(TfxExecutor):
    """Lets TFMA write its evaluation, then measures, judges, and sets the blessing."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write `verdict.json` beside TFMA's files; a model that is refused is no error of the node.

        Raises:
            ValueError: where the split has no examples, or the model does not answer them.
        """
        (split,) = json.loads(exec_properties["example_splits"])
        thresholds = gates.Thresholds(**json.loads(exec_properties["gates"]))
        examples = read(artifact_utils.get_single_instance(input_dict["examples"]), split)
        model = artifact_utils.get_single_instance(input_dict[MODEL])
        folder = model_store.find(model.uri)
        if folder is None:
            raise ValueError(f"there is no SavedModel in {model.uri}")
        classifier = Classifier(folder)
        answers = classifier.ask(examples)
        baseline = _compare(input_dict.get(BASELINE, []), examples, answers)
        corrupted = _robustness(classifier, examples, thresholds.robustness_examples)
        verdict = Verdict(
            model=model_store.fingerprint(folder),
            split=split,
            accuracy=gates.accuracy(answers.right),
            class_accuracy=gates.class_accuracy(answers),
            calibration_error=gates.calibration(answers),
            log_loss=answers.log_loss,
            confusion=answers.confusion.tolist(),
            gates=gates.judge(thresholds, answers, baseline.figures, corrupted),
            baseline=baseline.figures,
            no_baseline=baseline.missing,
            robustness=corrupted,
        )
        # With a baseline TFMA takes twice its time, for figures that the verdict has already.
        alone = {key: artifacts for key, artifacts in input_dict.items() if key != BASELINE}
        begin = time.monotonic()
        super().Do(alone, output_dict, exec_properties)
        logger.info("TFMA took %.1f s", time.monotonic() - begin)
        evaluation = artifact_utils.get_single_uri(output_dict["evaluation"])
        io_utils.write_string_file(str(PurePath(evaluation) / VERDICT_FILE), verdict.to_json())
        _bless(artifact_utils.get_single_instance(output_dict["blessing"]), input_dict, verdict)
        dashboard.fill_metrics(artifact_utils.get_single_instance(output_dict["metrics"]), verdict)
        dashboard.fill_confusion(artifact_utils.get_single_instance(output_dict["confusion"]), verdict)
        for gate in verdict.failed:
            logger.info("not passed: %s", gate)


def _compare(artifacts: list[Artifact], examples: Examples, candidate: gates.Answers) -> _Compared:
    if not artifacts:
        return _Compared(missing="none was given")
    artifact = artifact_utils.get_single_instance(artifacts)
    folder = model_store.find(artifact.uri)
    if folder is None:
        return _Compared(
            missing=artifact.get_string_custom_property(REASON_PROPERTY)
            or f"there is no SavedModel in {artifact.uri}"
        )
    version = artifact.get_string_custom_property(VERSION_PROPERTY) or artifact.uri
    try:
        answers = Classifier(folder).ask(examples)
        if answers.classes != candidate.classes:
            raise UnusableModelError(f"it knows {answers.classes} classes, not {candidate.classes}")
    except UnusableModelError as error:
        # A model of another problem is in production: nothing can be lost against it.
        logger.warning("the baseline %s is left out: %s", version, error)
        return _Compared(missing=f"{version} cannot be compared with: {error}")
    return _Compared(gates.compare(version, model_store.fingerprint(folder), answers, candidate))


def _robustness(classifier: Classifier, examples: Examples, most: int) -> tuple[Robustness, ...]:
    """Accuracy on corrupted images, from at most so many examples that lie evenly among all."""
    count = min(most, len(examples.labels))
    if not count:
        return ()
    chosen = np.linspace(0, len(examples.labels) - 1, count).astype(np.int64)
    images, labels = examples.images[chosen], examples.labels[chosen]
    return tuple(
        Robustness(name, severity, gates.accuracy(classifier.ask(Examples(changed, labels)).right))
        for name, severity, changed in robustness.corrupted(images)
    )


def _bless(blessing: Artifact, input_dict: dict[str, list[Artifact]], verdict: Verdict) -> None:
    """As TFX's own executor does where it has thresholds."""
    (model,) = input_dict[MODEL]
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
    if verdict.baseline:
        (baseline,) = input_dict[BASELINE]
        blessing.set_string_custom_property(
            constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY, baseline.uri
        )
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY, baseline.id)
    name, value = (
        (constants.BLESSED_FILE_NAME, constants.BLESSED_VALUE)
        if verdict.blessed
        else (constants.NOT_BLESSED_FILE_NAME, constants.NOT_BLESSED_VALUE)
    )
    io_utils.write_string_file(str(PurePath(blessing.uri) / name), "")
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
