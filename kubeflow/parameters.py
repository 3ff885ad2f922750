"""Settings that stay open until a run starts, and where in the compiled pipeline each of them goes.

A TFX component takes some of its settings inside a JSON text (Trainer's `custom_config`, Evaluator's
`eval_config`), where Kubeflow cannot put a value. So the pipeline is compiled a second time with a probe
in place of each setting; wherever the two differ, a setting goes. The definition knows nothing of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kubeflow.bindings import Binding, Path, decode
from pipeline import product
from pipeline.config import ConfigError, PipelineConfig

Json = Any


@dataclass(frozen=True)
class Parameter:
    """One setting that a run may change.

    Attributes:
        name: what it is called in a run.
        setting: its dotted name in PipelineConfig.
        type: Kubeflow's type.
        probe: a valid value that stands nowhere else in the pipeline.
        unset: the value that leaves a setting to its recipe; None where there is always a value.
        description: for the run dialog of Kubeflow's page.
    """

    name: str
    setting: str
    type: Literal["STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE"]
    probe: str | int | float
    description: str
    unset: str | int | float | None = None

    def default(self, config: PipelineConfig) -> str | int | float:
        """The value in `config`, or the one that means none."""
        value = _get(config, self.setting)
        if value is None:
            assert self.unset is not None
            return self.unset
        return value


PARAMETERS = (
    Parameter(
        "data_uri",
        "data.uri",
        "STRING",
        "minio://probe/data",
        "Folder of the four IDX files, in the same bucket as the pipeline root.",
    ),
    Parameter(
        "data_fingerprint",
        "data.fingerprint",
        "STRING",
        "probe-fingerprint",
        f"Fingerprint of the data (`{product.NAME} compile --data-dir` prints it). Other contents in the "
        "same folder need another one, or results are taken from the cache. Empty: not checked.",
    ),
    Parameter("recipe", "trainer.recipe", "STRING", "probe-recipe", "Hyper-parameters by name."),
    Parameter(
        "train_steps",
        "trainer.train_steps",
        "NUMBER_INTEGER",
        1_000_003,
        "Optimizer steps; 0: as the recipe says.",
        unset=0,
    ),
    Parameter(
        "learning_rate",
        "trainer.learning_rate",
        "NUMBER_DOUBLE",
        0.123456781,
        "Peak learning rate; 0: as the recipe says.",
        unset=0.0,
    ),
    Parameter(
        "batch_size",
        "trainer.batch_size",
        "NUMBER_INTEGER",
        1_000_033,
        "Images per step; 0: as the recipe says.",
        unset=0,
    ),
    Parameter(
        "accuracy",
        "gates.accuracy",
        "NUMBER_DOUBLE",
        0.123456783,
        "Gate: accuracy on the test images that a model needs to be pushed.",
    ),
    Parameter(
        "class_accuracy",
        "gates.class_accuracy",
        "NUMBER_DOUBLE",
        0.123456785,
        "Gate: accuracy on each single class.",
    ),
    Parameter(
        "baseline_uri",
        "baseline.uri",
        "STRING",
        "minio://probe/baseline",
        "Folder of the SavedModel to compare with, in the same bucket as the pipeline root.",
    ),
    Parameter(
        "model_name",
        "push.model_name",
        "STRING",
        "probe-model",
        "Folder of the model below push_destination.",
    ),
    Parameter(
        "push_destination",
        "push.destination",
        "STRING",
        "/probe/destination",
        "Folder that holds the models, on a mounted volume.",
    ),
)


def open_parameters(config: PipelineConfig) -> tuple[Parameter, ...]:
    """The parameters that a pipeline of this config has."""
    closed: tuple[str, ...] = ("push.",) if config.push.to == "artifact" else ()
    if not config.baseline.uri:
        # The node that looks for the model in production takes the place of the importer.
        closed += ("baseline.",)
    return tuple(p for p in PARAMETERS if not p.setting.startswith(closed))


def probed(config: PipelineConfig, parameters: tuple[Parameter, ...]) -> PipelineConfig:
    """The config with a probe in place of each parameter's setting."""
    for parameter in parameters:
        section, _, field = parameter.setting.partition(".")
        config = config.replace(section, **{field: parameter.probe})
    return config


def bindings(
    plain: Mapping[str, Mapping[str, Json]],
    probes: Mapping[str, Mapping[str, Json]],
    parameters: tuple[Parameter, ...],
) -> list[Binding]:
    """Where each parameter goes.

    Args:
        plain: the constants of each task by parameter name, as compiled from the config.
        probes: the same, compiled from the probed config.
        parameters: what was probed.

    Raises:
        ConfigError: where a difference is no parameter's, or a parameter makes no difference.
    """
    found = []
    for task, inputs in sorted(probes.items()):
        for name, value in sorted(inputs.items()):
            before = dict(_leaves(decode(plain[task].get(name))))
            for path, leaf in _leaves(decode(value)):
                if path in before and before[path] == leaf:
                    continue
                template, optional = _template(leaf, parameters)
                if template is None:
                    raise ConfigError(
                        f"{task}.{name}: a runtime parameter changes {list(path)}, but does not stand there"
                    )
                found.append(Binding(task, name, path, template, optional))
    used = "".join(binding.template for binding in found)
    for parameter in parameters:
        if f"{{{parameter.name}}}" not in used:
            raise ConfigError(f"the runtime parameter {parameter.name!r} reaches no node")
    return found


def _template(leaf: Json, parameters: tuple[Parameter, ...]) -> tuple[str | None, bool]:
    for parameter in parameters:
        if leaf == parameter.probe:
            return f"{{{parameter.name}}}", parameter.unset is not None
    if not isinstance(leaf, str):
        return None, False
    template = leaf.replace("{", "{{").replace("}", "}}")
    for parameter in parameters:
        if isinstance(parameter.probe, str):
            template = template.replace(parameter.probe, f"{{{parameter.name}}}")
    return (template, False) if template != leaf else (None, False)


def _leaves(tree: Json, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(tree, list) and tree:
        for index, value in enumerate(tree):
            yield from _leaves(value, (*path, index))
    else:
        yield path, tree


def _get(config: PipelineConfig, setting: str) -> Any:
    section, _, field = setting.partition(".")
    return getattr(getattr(config, section), field)
