"""Evaluator: work."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorflow_model_analysis.proto import config_pb2
from tfx.components.evaluator import constants
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import proto_utils

from components.evaluator import answering, dashboard, gates, robustness, tfma_files
from components.evaluator.answering import Job, Part
from components.shared import (
    answers,
    classifier,
    examples,
    files,
    handover,
    lite,
    measures,
    model_store,
    names,
)
from components.shared.classifier import Classifier, ModelError
from components.shared.lite import LiteModel
from components.shared.verdict import VERDICT_FILE, Lite, Robustness, Verdict
from trainer import features
from trainer.features import ImageInput

MODEL, BASELINE, MODEL_RUN = "model", "baseline_model", "model_run"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _InProduction:
    """The model to compare with.

    Attributes:
        missing: why there is none.
        version: its name in the push destination, or its URI.
        folder: of its SavedModel.
        model: loaded; held so that the workers in this process do not load it again.
    """

    missing: str = ""
    version: str = ""
    folder: str = ""
    model: Classifier | None = None


class Executor(BaseBeamExecutor):
    """Asks the models about every example once; all that it writes follows from the answers."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write answers, `verdict.json` and TFMA's files; a model that is refused is no error of the node.

        Raises:
            ValueError: where the split has no examples, the model does not answer them, another
                eval_config is asked for, or a gate is on a metric that the Trainer has not.
        """
        asked = config_pb2.EvalConfig()
        proto_utils.json_to_proto(exec_properties["eval_config"], asked)
        tfma_files.check(asked)
        (split,) = json.loads(exec_properties["example_splits"])
        thresholds = gates.Thresholds(**json.loads(exec_properties["gates"]))
        data = artifact_utils.get_single_instance(input_dict["examples"])
        model = artifact_utils.get_single_instance(input_dict[MODEL])
        folder = model_store.find(model.uri)
        if folder is None:
            raise ValueError(f"there is no SavedModel in {model.uri}")
        candidate = classifier.load(
            folder
        )  # held, so that the workers in this process do not load it again
        in_production = _in_production(input_dict.get(BASELINE, []))
        evaluation = artifact_utils.get_single_uri(output_dict["evaluation"])

        paths = examples.split_files(data, split)
        images = examples.image_input(data)
        lite_file = lite.find(folder)
        job = Job(
            candidate=folder,
            baseline=in_production.folder,
            output=evaluation,
            files=len(paths),
            batch=classifier.batch_size(*images.shape[:2]),
            # One image is enough to measure a time by.
            sample=thresholds.robustness_examples or (1 if lite_file else 0),
            lite=str(lite_file or ""),
            images=images,
        )
        part = self._answer(job, paths)
        if part.refused:
            raise ModelError(part.refused)
        if part.tally is None:
            raise ValueError(f"split {split} has no examples")
        if part.baseline_refused:
            missing = f"{in_production.version} cannot be compared with: {part.baseline_refused}"
            logger.warning("the baseline is left out: %s", missing)
            in_production = _InProduction(missing)
        verdict = _judge(
            part,
            split,
            thresholds,
            folder,
            in_production,
            _robustness(candidate, part, images) if thresholds.robustness_examples else (),
            _lite(lite_file, part, images),
            _reported(input_dict.get(MODEL_RUN, [])),
            _classes(data, part),
        )

        answers.write_mistakes(evaluation, part.mistakes)
        tfma_files.write(evaluation, folder, part.tally.confusion)
        files.write_text(Path(evaluation, VERDICT_FILE), verdict.to_json())
        _bless(artifact_utils.get_single_instance(output_dict["blessing"]), input_dict, verdict)
        dashboard.fill_metrics(artifact_utils.get_single_instance(output_dict["metrics"]), verdict)
        dashboard.fill_confusion(artifact_utils.get_single_instance(output_dict["confusion"]), verdict)
        for gate in verdict.failed:
            logger.info("not passed: %s", gate)

    def _answer(self, job: Job, paths: list[str]) -> Part:
        """Run the Beam pipeline."""
        begin = time.monotonic()
        with self._make_beam_pipeline() as pipeline:
            handover.give(answering.run(pipeline, job, paths), job.output)
        part: Part = handover.take(job.output)
        count, taken = part.tally.examples if part.tally else 0, time.monotonic() - begin
        logger.info("%d answers in %.1f s", count, taken)
        return part


def _in_production(artifacts: list[Artifact]) -> _InProduction:
    if not artifacts:
        return _InProduction("none was given")
    artifact = artifact_utils.get_single_instance(artifacts)
    folder = model_store.find(artifact.uri)
    if folder is None:
        reason = artifact.get_string_custom_property(names.REASON)
        return _InProduction(reason or f"there is no SavedModel in {artifact.uri}")
    version = artifact.get_string_custom_property(names.VERSION) or artifact.uri
    try:
        return _InProduction(version=version, folder=folder, model=classifier.load(folder))
    except ModelError as error:
        logger.warning("the baseline %s is left out: %s", version, error)
        return _InProduction(f"{version} cannot be compared with: {error}")


def _judge(
    part: Part,
    split: str,
    thresholds: gates.Thresholds,
    folder: str,
    in_production: _InProduction,
    corrupted: tuple[Robustness, ...],
    on_device: Lite | None,
    reported: gates.Reported,
    classes: gates.Classes,
) -> Verdict:
    tally = part.tally
    assert tally is not None
    baseline = None
    if tally.paired and not in_production.missing:
        fingerprint = model_store.fingerprint(in_production.folder)
        baseline = gates.compare(in_production.version, fingerprint, tally)
    return Verdict(
        model=model_store.fingerprint(folder),
        split=split,
        accuracy=gates.overall_accuracy(tally.confusion),
        class_accuracy=gates.class_accuracy(tally.confusion),
        calibration_error=gates.calibration(tally.reliability),
        log_loss=tally.log_loss / tally.examples,
        confusion=tally.confusion.tolist(),
        reliability=measures.reliability(tally.reliability),
        gates=gates.judge(thresholds, tally, baseline, corrupted, reported, on_device, classes),
        baseline=baseline,
        no_baseline=in_production.missing,
        robustness=corrupted,
        lite=on_device,
        class_names=classes.names,
    )


def _lite(file: Path | None, part: Part, given: ImageInput) -> Lite | None:
    counts = part.lite
    if file is None or counts is None:
        return None
    won = counts.right - (part.tally.confusion.trace() - counts.lost if part.tally else 0)
    images, _ = examples.decode(examples.parse([part.sample[0][1]]).raw, given)
    saved = (path for path in file.parent.rglob("*") if path.is_file() and path != file)
    return Lite(
        accuracy=measures.wilson(counts.right, counts.examples),
        accuracy_drop=gates.drop(counts.lost, int(won), counts.examples),
        agreement=measures.wilson(counts.agreed, counts.examples),
        size_bytes=file.stat().st_size,
        saved_model_bytes=sum(path.stat().st_size for path in saved),
        latency_ms=LiteModel(file).latency_ms(images[0]),
    )


def _classes(data: Artifact, part: Part) -> gates.Classes:
    names = tuple(examples.class_names(data))
    known = part.tally is not None and len(names) == len(part.tally.confusion)
    return gates.Classes(names if known else (), frozenset(examples.absent_classes(data)))


def _reported(model_runs: list[Artifact]) -> gates.Reported:
    if not model_runs:
        return gates.Reported()
    path = Path(artifact_utils.get_single_uri(model_runs), names.METRICS_FILE)
    written = json.loads(path.read_text())
    return gates.Reported(written["validation_metrics"], written["validation_examples"])


def _robustness(candidate: Classifier, part: Part, given: ImageInput) -> tuple[Robustness, ...]:
    """Accuracy on the sample, corrupted: its size is a setting, so that this takes the same on any data."""
    if not part.sample:
        return ()
    some = examples.parse([record for _, record in part.sample])
    images, good = examples.decode(some.raw, given)
    photos = given.fit != features.FIT_CENTER
    labels = some.labels[good]
    return tuple(
        Robustness(
            name,
            severity,
            measures.wilson(
                int((candidate.of_images(changed).argmax(axis=1) == labels).sum()), len(labels)
            ),
        )
        for name, severity, changed in robustness.corrupted(images, photos)
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
    files.write_text(Path(blessing.uri, name), "")
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
