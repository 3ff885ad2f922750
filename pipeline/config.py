"""PipelineConfig: every setting of the pipeline in one frozen, typed, validated object."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveInt,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from pipeline import product
from pipeline.beam_config import BeamConfig
from pipeline.datasets.catalogue import DATASETS
from pipeline.errors import UserError
from pipeline.sections import NonNegativeInt, Section, Strings
from trainer import features
from trainer.features import ImageInput, ImageShape
from trainer.recipes import Params

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

CODE = "code"
SCRATCH = ".scratch"  # below the pipeline's root: a folder for each run in progress

# Longest path that SQLite opens: 512 bytes (its MAX_PATHNAME) with the 8 of "-journal".
_SQLITE_PATH = 504
# What TensorFlow's and Beam's file systems read as a pattern.
_PATTERN = "[]*?\\"


class ConfigError(UserError):
    """A setting that cannot be used."""


def no_pattern(path: str) -> str:
    """The path, which TensorFlow and Beam must not take for a pattern of file names.

    Raises:
        ValueError: where they would.
    """
    if found := [character for character in path if character in _PATTERN or character < " "]:
        raise ValueError(f"a path with {found[0]!r} is a pattern to TensorFlow: take another name")
    return path


def _regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"this is no regular expression: {error}") from None
    return pattern


Regex = Annotated[str, AfterValidator(_regex)]
PlainPath = Annotated[str, AfterValidator(no_pattern)]


class DataConfig(Section):
    """The labelled images, how they are read, and what is known about them before the pipeline runs."""

    dataset: str = Field(
        product.DATASET, description="name: drift is looked for among data of the same name"
    )
    uri: str = Field("", description="folder of the images: docs/your-own-images.md says what may be in it")
    source: str = Field("", description="how the folder is read: idx, folder, …; empty: by what is in it")
    size: str = Field("", pattern=r"^(\d+x\d+)?$", description="height x width of the images, as 64x64")
    fit: Literal["crop", "pad", "stretch"] = Field(
        "crop", description="what a picture of another aspect ratio gets"
    )
    kind: Literal["auto", "digits", "photos"] = Field(
        "auto",
        description="a photo of digits is centred as MNIST was, others are resized; auto: MNIST, and grey "
        "arrays of pixels with classes 0 to 9, are digits",
    )
    channels: Literal["auto", "1", "3"] = Field("auto", description="1 grey, 3 colour; auto: as the data")
    orient: Literal["", "transpose", "rotate90", "rotate180", "rotate270", "mirror"] = Field(
        "", description="how arrays of pixels are turned; EMNIST's need transpose"
    )
    label_offset: NonNegativeInt | None = Field(
        None, description="what is taken off every label; None: 1 where they begin at 1"
    )
    bad_images: Literal["stop", "skip"] = Field("stop", description="pictures that cannot be read")
    max_bad: Share = Field(0.01, description="more of them than this share stop the run all the same")
    path_column: str = Field("", description="of a manifest or Parquet file; empty: by its usual names")
    label_column: str = Field("", description="likewise")
    split_column: str = Field("", description="likewise")
    fingerprint: str = Field("", description="SHA-256 of the files' contents; empty: not checked")
    shape: ImageShape = Field(
        features.DEFAULT_IMAGE_SHAPE, description="of the images that the network reads; found out"
    )
    encoded: bool = Field(False, description="examples hold picture files of any size; found out")
    names: str = Field(
        "",
        description="file with the names of classes, by label: one a line, or JSON as Keras's "
        "imagenet_class_index.json; empty: as the data have them",
    )
    class_names: Strings = Field((), description="by label; found out")
    class_ids: Strings = Field((), description="what the data call them, of data.names; found out")
    num_classes: NonNegativeInt = Field(0, description="labels are below this; 0: as the data say")
    shards: PositiveInt = Field(2, description="files per split that ImageExampleGen writes")

    @field_validator("shape", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """As `28,28,1`, like every list."""
        return value.split(",") if isinstance(value, str) else value

    @property
    def wanted_size(self) -> tuple[int, int] | None:
        """Height and width in pixels, where they are set."""
        if not self.size:
            return None
        height, width = (int(side) for side in self.size.split("x"))
        return height, width

    @property
    def images(self) -> ImageInput:
        """What the graph that decodes images needs to know."""
        return ImageInput(self.shape, self.encoded, features.FIT_CENTER if self.is_digits else self.fit)

    @property
    def is_digits(self) -> bool:
        """Whether a picture of another size is scaled and centred as MNIST's were."""
        if self.kind != "auto":
            return self.kind == "digits"
        if self.encoded or self.shape.channels != 1:
            return False
        known = DATASETS.get(self.dataset)
        return known.digits if known else set(self.class_names) <= set("0123456789")

    @model_validator(mode="after")
    def _digits_are_grey(self) -> DataConfig:
        if self.kind == "digits" and self.shape.channels != 1:
            raise ValueError("data.kind = digits is for grey images: set data.channels=1")
        return self

    def options(self) -> dict[str, Any]:
        """Fields of components.image_example_gen.sources.Options that are not at their defaults."""
        names = {"label_offset", "orient", "bad_images", "max_bad"}
        names |= {"path_column", "label_column", "split_column"}
        if self.names:
            names |= {"class_names", "class_ids"}
        return self.model_dump(include=names, exclude_defaults=True)


class DataGateConfig(Section):
    """What data must be to be trained on; thresholds are for what sampling noise does not explain."""

    stop_at: Literal["warning", "error"] = Field(
        "error", description="severity of ExampleValidator's anomalies that stops the run"
    )
    allow: Strings = Field((), description="names of anomalies that pass; * stands for anything")
    max_label_distance: Share = Field(0.05, description="distance of label distributions")
    max_image_distance: Share = Field(0.1, description="distance of distributions of an image fact")
    max_agreement_lost: Share = Field(0.1, description="right answers of class means lost between splits")
    max_leakage: Share = Field(0.005, description="test images that are in training too")
    max_imbalance: Annotated[float, Field(ge=1)] = Field(
        8.0, description="times that a class is as frequent as the median class"
    )
    drift: bool = Field(True, description="compare with the data of the same name that went before")
    previous: str = Field("", description="folder of their facts.json; empty: as found below `root`")
    previous_fingerprint: str = Field("", description="SHA-256 of that file, for the cache")


# A field of the recipe can be set like any other; None keeps the recipe's own value.
_RECIPE_FIELDS: dict[str, Any] = {
    name: (annotation | None, Field(None, description="of the recipe: see trainer/recipes.py"))
    for name, annotation in get_type_hints(Params, include_extras=True).items()
}
# Settings that hold values by names of a user's choice: trainer.params.NAME=VALUE.
_MAPPINGS = frozenset(
    (
        "trainer.params",
        "trainer.optimizer_arguments",
        "trainer.schedule_arguments",
        "trainer.var_name_to_prev_var_name",
        "gates.metrics",
        "gates.metrics_at_most",
    )
)
# A word of Python's, so that it cannot be declared like the others.
_CONTINUE: Any = (bool, Field(False, description="go on with the training of the run, from its last step"))
_RecipeFields: Any = create_model(
    "_RecipeFields", __base__=Section, **_RECIPE_FIELDS, **{"continue": _CONTINUE}
)


class RunConfigSettings(Section):
    """How a training run is carried out: the fields of trainer.estimator.RunConfig that can be set."""

    save_checkpoints_steps: PositiveInt | None = Field(
        None, description="steps between two checkpoints; None: seconds count"
    )
    save_checkpoints_secs: Annotated[float, Field(ge=0)] = Field(
        30.0, description="least seconds between two checkpoints"
    )
    keep_checkpoint_max: PositiveInt = Field(
        1, description="checkpoints that are kept, the last ones, after the run too"
    )
    log_step_count_steps: PositiveInt | None = Field(
        None, description="steps between two lines of progress; None: two lines a second"
    )


class TrainerConfig(_RecipeFields):
    """The recipe, what to change in it, and what trains it."""

    recipe: str = Field("fast", description="hyper-parameters by name: see trainer/recipes.py")
    model_fn: str = Field("", description="dotted path of a model function; empty: trainer.model's")
    build_network: str = Field(
        "", description="dotted path of what makes its layers; empty: trainer.model's"
    )
    callbacks: str = Field("", description="dotted path of what makes Keras callbacks; empty: none")
    run_config: RunConfigSettings = RunConfigSettings()
    warm_start_from: str = Field(
        "",
        description="what to begin with: run:ID, a checkpoint or SavedModel; empty: new weights",
    )
    warm_start_checkpoint: str = Field("", description="which checkpoint there; found out")
    warm_start_fingerprint: str = Field("", description="SHA-256 of what is there, for the cache")
    vars_to_warm_start: Regex = Field(".*", description="which variables begin so, as names begin")
    var_name_to_prev_var_name: dict[str, str] | None = Field(
        None, description="names of variables there, by those here; None: the same"
    )
    evaluate_only: bool = Field(False, description="make no step: measure and export what is there")
    base_fingerprint: str = Field("", description="SHA-256 of the files of the base, for the cache")
    gpus: NonNegativeInt = Field(0, description="GPUs that must be visible; 0: train on what there is")
    workers: int = Field(
        1, ge=1, le=64, description="processes of this machine that train together, on its CPU"
    )
    checkpoint_dir: PlainPath = Field(
        "", description="folder that outlives executions; empty: the model_run artifact"
    )

    @model_validator(mode="after")
    def _begins_with_something(self) -> TrainerConfig:
        given = self.model_dump(include={"continue", "evaluate_only", "var_name_to_prev_var_name"})
        for name, value in given.items():
            if value and not self.warm_start_from:
                raise ValueError(f"{name} needs warm_start_from: set trainer.warm_start_from=run:ID")
        if given["continue"] and self.evaluate_only:
            raise ValueError("continue makes steps and evaluate_only makes none: set one of them")
        return self

    @model_validator(mode="after")
    def _workers_have_work(self) -> TrainerConfig:
        if self.workers > 1 and self.gpus:
            raise ValueError(
                "workers are processes on the CPU, and one process trains on all GPUs of a machine: set "
                "either trainer.workers or trainer.gpus"
            )
        if self.workers > 1 and self.evaluate_only:
            raise ValueError("evaluate_only makes no step for several workers: leave trainer.workers out")
        return self

    def overrides(self) -> dict[str, Any]:
        """What differs from the recipe, by the names of trainer.recipes.Params."""
        return self.model_dump(include=set(_RECIPE_FIELDS), exclude_none=True)

    def custom_config(self) -> dict[str, Any]:
        """What trainer.train.run_fn reads; what is empty is left out."""
        # What it begins with is an artifact, which on a cluster is somewhere else for each task.
        others = {*_RECIPE_FIELDS, "warm_start_from"}
        settings = self.model_dump(exclude=others, exclude_defaults=True)
        return settings | {"recipe": self.recipe, "overrides": self.overrides()}


class GatesConfig(Section):
    """What a model must reach on the test split to be pushed."""

    accuracy: Share = Field(0.97, description="overall accuracy")
    class_accuracy: Share = Field(0.93, description="accuracy of each single class")
    class_examples: NonNegativeInt = Field(
        10, description="test examples of each class, fewer cannot tell whether a model is good"
    )
    calibration_error: Share = Field(0.1, description="greatest expected calibration error")
    accuracy_drop: Share = Field(
        0.003, description="how much overall accuracy may be lost against the baseline"
    )
    class_accuracy_drop: Share = Field(0.02, description="the same for each single class")
    robustness: Share | None = Field(
        None, description="accuracy under each corruption, mean of its severities; None: reported only"
    )
    robustness_examples: NonNegativeInt = Field(
        500, description="test images that are corrupted; 0: none, which saves a second or two"
    )

    metrics: dict[str, Finite] | None = Field(
        None, description="least value of a metric of the model function, by name, on the validation split"
    )
    metrics_at_most: dict[str, Finite] | None = Field(None, description="greatest value, likewise")

    @property
    def metric_names(self) -> dict[str, str]:
        """The settings by the names of the metrics that they are about."""
        groups = {"metrics_at_most": self.metrics_at_most, "metrics": self.metrics}
        return {name: f"gates.{group}.{name}" for group, of in groups.items() for name in of or {}}


class BaselineConfig(Section):
    """The model that a candidate is compared with: the newest version where models are pushed to."""

    version: str = Field("", pattern=r"^[0-9]*$", description="another version there; empty: the newest")
    uri: str = Field("", description="folder of a SavedModel to compare with instead")
    fingerprint: str = Field("", description="SHA-256 of its files, so that others are another baseline")


class ServingValidatorConfig(Section):
    """What a model must show on a server to be pushed."""

    num_examples: PositiveInt = Field(64, description="test examples sent to each signature, by each API")
    latency_budget_ms: Annotated[float, Field(gt=0)] = Field(
        1_000.0, description="95 % of requests of one image must be answered within it"
    )
    server_binary: str = Field(
        "", description="path of a tensorflow_model_server; empty: the project's own server"
    )


def _lite(value: Any) -> Any:
    """Yes is the kind that every device has."""
    return {"true": "float16", "false": ""}.get(str(value).lower(), value)


class PushConfig(Section):
    """Where an accepted model goes."""

    model_name: str = Field(
        product.NAME,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=255,  # it is a folder's name
        description="served name",
    )
    to: Literal["folder", "artifact"] = Field(
        "folder", description="a folder that a server reads, or nothing but the pushed_model artifact"
    )
    destination: PlainPath = Field("", description="folder that holds <model_name>; empty: <root>/serving")
    lite: Annotated[Literal["", "float16", "int8"], BeforeValidator(_lite)] = Field(
        "", description="a LiteRT model next to the SavedModel; true: float16; empty: none"
    )


class MetadataConfig(Section):
    """ML Metadata: SQLite below the root, or a MySQL server when a host is given."""

    mysql_host: str = Field("", description="MySQL server; empty: <root>/metadata.db")
    mysql_port: PositiveInt = Field(3306, description="its port")
    mysql_database: str = Field("metadb", description="its database")
    mysql_user: str = Field("root", description="its user")
    mysql_password: str = Field("", description="the user's password", repr=False)


class PipelineConfig(Section):
    """All settings of one pipeline; what differs between targets comes in through here alone."""

    # Kubeflow's limit.
    name: str = Field(
        product.NAME,
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        max_length=128,
        description="name of the pipeline",
    )
    root: Path = Field(Path("var"), description="everything that a run writes lands below this folder")
    cache: bool = Field(True, description="reuse the results of nodes whose inputs did not change")
    code: dict[str, str] = Field({}, description="hash of each node's code, as pipeline.resolve finds it")
    overlap: bool = Field(True, description="run nodes in parallel where cores and memory allow")
    data: DataConfig = DataConfig()
    data_gate: DataGateConfig = DataGateConfig()
    trainer: TrainerConfig = TrainerConfig()
    gates: GatesConfig = GatesConfig()
    baseline: BaselineConfig = BaselineConfig()
    serving_validator: ServingValidatorConfig = ServingValidatorConfig()
    push: PushConfig = PushConfig()
    metadata: MetadataConfig = MetadataConfig()
    beam: BeamConfig = BeamConfig()

    @field_validator("root", mode="before")
    @classmethod
    def _absolute(cls, root: str | Path) -> Path:
        if "://" in str(root):
            raise ValueError("must be a folder of this machine")
        try:
            path = Path(root).expanduser().absolute()
        except RuntimeError:  # no HOME, and no such user
            raise ValueError("nothing says where the home folder ~ is") from None
        return Path(no_pattern(str(path)))

    @model_validator(mode="after")
    def _sqlite_can_open_it(self) -> PipelineConfig:
        length = len(os.fsencode(self.metadata_path))
        if not self.metadata.mysql_host and length > _SQLITE_PATH:
            raise ValueError(
                f"root: SQLite opens paths of {_SQLITE_PATH} bytes at most, and {self.metadata_path.name} "
                f"below it would have {length}: take a shorter path"
            )
        return self

    @property
    def pipeline_root(self) -> Path:
        """Folder of the artifacts."""
        return self.root / "pipelines" / self.name

    def scratch_dir(self, run_id: str) -> Path:
        """Folder for what a run needs while it lasts."""
        return self.pipeline_root / SCRATCH / run_id

    @property
    def serving_dir(self) -> Path:
        """Folder of the version folders that TF Serving reads."""
        return Path(self.push.destination or self.root / "serving").absolute() / self.push.model_name

    @property
    def metadata_path(self) -> Path:
        """ML Metadata's SQLite file."""
        return self.root / "metadata.db"

    @property
    def logs_dir(self) -> Path:
        """Folder of one log file a run."""
        return self.root / "logs"

    @property
    def reports_dir(self) -> Path:
        """Folder of one page a run."""
        return self.root / "reports"

    def replace(self, section: str, **values: Any) -> PipelineConfig:
        """A copy with some settings of one section changed; the values are validated."""
        # What nobody has set stays so.
        changed = {**getattr(self, section).model_dump(exclude_unset=True), **values}
        return build(self.model_dump(exclude_unset=True) | {section: changed})


def build(values: dict[str, Any]) -> PipelineConfig:
    """A config from nested dicts; raises ConfigError with one line that names the setting."""
    try:
        return PipelineConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(_unknown(key)) from None
        if first["type"] == "value_error" and isinstance(first["input"], dict):
            # Of a whole section, whose values stand in the message where they matter.
            raise ConfigError(": ".join(filter(None, [key, str(first["ctx"]["error"])]))) from None
        reason = first["msg"].removeprefix("Value error, ")
        reason = reason[:1].lower() + reason[1:]
        raise ConfigError(f"{key}: {reason}, got {first['input']!r}") from None


def with_settings(config: PipelineConfig, settings: Iterable[str]) -> PipelineConfig:
    """Apply `section.key=value` settings in order, each converted to its field's type.

    Raises:
        ConfigError: for a setting without `=`, an unknown key, or a value of the wrong type.
    """
    values = config.model_dump(exclude_unset=True)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"{setting!r} is not of the form key=value")
        *sections, name = key.split(".")
        in_mapping = ".".join(sections) in _MAPPINGS
        if not in_mapping and key not in set(keys()):
            raise ConfigError(_unknown(key))
        target = values
        for section in sections:
            target[section] = target.get(section) or {}
            target = target[section]
        target[name] = _json(value) if in_mapping else value
    return build(values)


def _json(value: str) -> Any:
    """A number, true, a list and so on; what is none of them is a string."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def keys() -> Iterator[str]:
    """Every setting by its dotted name."""
    yield from _keys(PipelineConfig)


def _keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _keys(field.annotation, f"{prefix}{name}.")
        elif name != CODE:  # found, not set
            yield prefix + name


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key, list(keys()), n=1)
    hint = f": did you mean {near[0]}?" if near else f"; there are {', '.join(_near_in_the_tree(key))}"
    return f"unknown setting {key!r}{hint}"


def _near_in_the_tree(key: str) -> Iterable[str]:
    """What the last section that a key names right holds; sections as `name.…`: all would fill a screen."""
    section = ""
    for part in key.split("."):
        if not any(known.startswith(f"{section}{part}.") for known in keys()):
            break
        section += f"{part}."
    inside = (known.removeprefix(section).partition(".") for known in keys() if known.startswith(section))
    return dict.fromkeys(f"{section}{name}.…" if rest else f"{section}{name}" for name, _, rest in inside)
