"""Whether a data set has examples enough of each class for a model of it to be pushed.

DataGate and the Evaluator ask the same, after minutes of work. What they are sure to refuse shows in the
counts already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from components.data_gate import checks
from components.image_example_gen.sources import DataSet
from components.image_example_gen.splitting import splitting
from pipeline.config import PipelineConfig
from trainer import features

_SHOWN = 5  # classes that a line names


@dataclass(frozen=True)
class Lack:
    """What a data set has too little of.

    Attributes:
        text: all of it, in one line.
        settings: `key=value` each, with which a run takes the data as they are.
    """

    text: str
    settings: tuple[str, ...]


def find(config: PipelineConfig, data: DataSet, folder: str) -> Lack | None:
    """Why no model of a data set could be pushed; None where one may.

    Args:
        config: settings; the gates' and DataGate's count.
        data: what was found in the folder.
        folder: for messages.

    Raises:
        SourceError: where there are too few examples to set any aside.
    """
    least = config.gates.class_examples
    trained, tested = data.counts[features.TRAIN], data.counts.get(features.TEST, ())
    said: list[str] = []
    allow: list[str] = []
    takes = least
    nowhere = set(data.absent)  # announced by `data check` and the report
    absent = [label for label, count in enumerate(trained) if not count and label not in nowhere]
    if absent and not _allowed(config, checks.TRAIN_MISSING_CLASS):
        said.append(f"no training image of class {_listed(data, absent)}")
        allow.append(checks.TRAIN_MISSING_CLASS)
    if any(tested):
        few = [label for label, count in enumerate(tested) if count < least and label not in nowhere]
        if few:
            takes = min(tested[label] for label in few)
            said.append(
                f"gates.class_examples = {least}, but class {_listed(data, few)} has "
                f"{takes if len(few) == 1 else 'fewer'} test images"
            )
        if any(trained[label] and not tested[label] for label in few) and not _allowed(
            config, checks.TEST_MISSING_CLASS
        ):
            allow.append(checks.TEST_MISSING_CLASS)
    else:
        size = splitting(data.examples, folder).sizes[features.TEST]
        if size < least * (data.num_classes - len(nowhere)):
            takes = 0  # how many each class gets, the contents' hashes say
            said.append(
                f"gates.class_examples = {least}, but the test split has {size} images in all, cut off "
                f"from those for training, of {data.num_classes} classes"
            )
    if not said:
        return None
    settings = [f"gates.class_examples={takes}"] if takes < least else []
    if allow:
        settings.append(f"data_gate.allow={','.join([*config.data_gate.allow, *allow])}")
    return Lack("; ".join(said), tuple(settings))


def _allowed(config: PipelineConfig, name: str) -> bool:
    return not checks.unallowed([checks.Anomaly(name, 0.0, "")], config.data_gate.allow)


def _listed(data: DataSet, labels: Sequence[int]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(data.class_names[label] for label in labels[:_SHOWN]) + more
