"""Hyper-parameters by name. Imports neither TensorFlow nor Keras: the command line reads it too."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from trainer.features import ImageShape
from trainer.networks import NETWORKS

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Optimizer = Literal[
    "sgd",
    "adamw",
    "adam",
    "adamax",
    "nadam",
    "rmsprop",
    "adagrad",
    "adadelta",
    "adafactor",
    "ftrl",
    "lamb",
    "lion",
    "muon",
    "muon_sgd",
]
Schedule = Literal[
    "constant",
    "one_cycle",
    "exponential_decay",
    "inverse_time_decay",
    "polynomial_decay",
    "cosine_decay",
    "cosine_decay_restarts",
    "piecewise_constant_decay",
]
Share = Annotated[float, Field(ge=0, lt=1)]


def _known_network(name: str) -> str:
    if name not in NETWORKS:
        raise ValueError(f"this is no network{_hint(name, list(NETWORKS))}")
    return name


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", validate_default=True))
class Params(Mapping[str, Any]):
    """What a model_fn and the Trainer read; pydantic's ValidationError, a ValueError, for a wrong value.

    A mapping too, of its attributes and of `params`: `params["learning_rate"]`, `params["my_own"]`.

    Attributes:
        network: which layers, by name in trainer.networks.
        batch_size: images per step and replica: see `scaled`.
        epochs: passes over the training split; the last may be partial. None where train_steps counts.
        train_steps: optimizer steps. None where epochs count.
        optimizer: the update rule, one of keras.optimizers, or muon_sgd: see trainer.muon.
        optimizer_arguments: of its class, by name, in place of what is given to it otherwise.
        learning_rate: constant, or the peak of the cycle.
        schedule: the learning rate over the run: constant, one_cycle, or one of
            keras.optimizers.schedules, which begins with learning_rate and spans the run.
        schedule_arguments: of its class, by name, in place of that.
        warmup: the share of the steps in which one_cycle climbs to the peak.
        momentum: of sgd and muon_sgd.
        weight_decay: decoupled from the gradient (AdamW), per unit of learning rate.
        dropout: share of units before the last layer that a training step leaves out.
        initializer: of the kernels: glorot (uniform), TensorFlow's default since 1.0; or
            unit_scaling, the one before it: uniform within ±sqrt(3 / fan_in).
        shift: the largest random shift of a training image in each direction, whole pixels.
        shift_fill: what moves in: zeros, or the image again, mirrored at its border (reflect).
        rotation, scale, shear, elastic: how far training images are deformed: see
            trainer.augmentation.RandomDeformation.
        crop: side of the square, in pixels, that the network gets of each image: from anywhere in training,
            else from the middle. 0: the whole image.
        flip: whether half of the training images are mirrored, left to right.
        brightness, contrast: how far they change: see trainer.augmentation.
        mirror: whether answers are the mean of those to an image and to its mirror image.
        answer_shift: pixels; answers are also the mean of those to the image as it is and moved so far to
            the upper left and to the lower right, its border mirrored. 0: it is not moved.
        weight_average: the share that an exponential moving average of the weights keeps each step; the
            average is what is measured and exported. 0: the weights themselves.
        weight_average_grows: whether that share begins small and grows with the steps, n, as
            (1 + n) / (10 + n): tf.train.ExponentialMovingAverage with num_updates.
        label_smoothing: share of the target that is spread over all classes in training.
        precision: arithmetic of the training step; `auto` takes what is fastest on this machine.
        seed: of weights, shuffling, dropout and augmentation.
        base: of the networks `retrain` and `pretrained`: a .keras file, or a name of keras.applications.
        base_weights: file with the weights of one of keras.applications; empty: Keras's own cache.
        base_input: what a .keras file gets: 0 … 255 as one of keras.applications.imagenet_utils's modes
            makes it (tf, torch, caffe) or as it is (bytes), or 0 … 1 (unit); auto: by the network's name.
        fine_tune: how many of the base's last layers with weights are trained too, with the new ones, when
            those have learned what the recipe says.
        fine_tune_epochs: passes over the training split of that second phase.
        fine_tune_learning_rate: of that phase, in place of learning_rate.
        validate_each_epoch: measure the validation split after each epoch; otherwise once, at the end.
        keep: export the weights of the last epoch, or of the one with the best validation accuracy.
        patience: stop after so many epochs without a better validation accuracy; 0: never.
        params: a model function's own hyper-parameters by name; values are what JSON has.
    """

    network: Annotated[str, AfterValidator(_known_network)]
    batch_size: PositiveInt
    epochs: PositiveFloat | None = None
    train_steps: PositiveInt | None = None
    optimizer: Optimizer = "sgd"
    optimizer_arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    learning_rate: PositiveFloat
    schedule: Schedule = "constant"
    schedule_arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    warmup: Share = 0.0
    momentum: Share = 0.0
    weight_decay: NonNegativeFloat = 0.0
    dropout: Share = 0.0
    initializer: Literal["glorot", "unit_scaling"] = "glorot"
    shift: Annotated[int, Field(ge=0)] = 0
    shift_fill: Literal["zeros", "reflect"] = "zeros"
    rotation: NonNegativeFloat = 0.0
    scale: Share = 0.0
    shear: NonNegativeFloat = 0.0
    elastic: NonNegativeFloat = 0.0
    crop: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    brightness: Share = 0.0
    contrast: Share = 0.0
    mirror: bool = False
    answer_shift: Annotated[int, Field(ge=0)] = 0
    weight_average: Share = 0.0
    weight_average_grows: bool = False
    label_smoothing: Share = 0.0
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    base: str = ""
    base_weights: str = ""
    base_input: Literal["auto", "tf", "torch", "caffe", "unit", "bytes"] = "auto"
    fine_tune: Annotated[int, Field(ge=0)] = 0
    fine_tune_epochs: PositiveFloat = 10
    fine_tune_learning_rate: PositiveFloat = 1e-5
    validate_each_epoch: bool = True
    keep: Literal["last", "best"] = "last"
    patience: Annotated[int, Field(ge=0)] = 0
    params: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.params[name] if name in self.params else vars(self)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self) | self.params)

    def __len__(self) -> int:
        return len(vars(self) | self.params)

    def __post_init__(self) -> None:
        if taken := sorted(set(self.params) & {field.name for field in dataclasses.fields(Params)}):
            raise ValueError(f"params: {taken[0]} is a field of its own: set {taken[0]} itself")
        if (self.epochs is None) == (self.train_steps is None):
            raise ValueError("exactly one of epochs and train_steps must be set")
        if (self.patience or self.keep == "best") and not self.validate_each_epoch:
            raise ValueError("patience and keep=best need validate_each_epoch")
        if self.network == "retrain" and not self.fine_tune and self._moves_pixels:
            raise ValueError(
                "features of a frozen base are computed once, which of all augmentation allows flip alone: "
                "set fine_tune, or leave the others out"
            )
        if self.weight_average_grows and not self.weight_average:
            raise ValueError("weight_average_grows needs weight_average")
        if self.shift_fill != "zeros" and (self._deforms or not self.shift):
            raise ValueError(
                "shift_fill=reflect needs shift, and no rotation, scale, shear or elastic: what those move "
                "in is zero"
            )

    @property
    def _moves_pixels(self) -> bool:
        """Whether an augmentation besides flip changes training images."""
        return bool(self._deforms or self.shift or self.crop or self.brightness or self.contrast)

    @property
    def _deforms(self) -> bool:
        """Whether training images are more than shifted."""
        return bool(self.rotation or self.scale or self.shear or self.elastic)

    def steps(self, examples: int) -> int:
        """Optimizer steps of a whole run over a training split of `examples` examples; at least one."""
        if self.train_steps is not None:
            return self.train_steps
        assert self.epochs is not None
        return max(1, round(self.epochs * examples / self.batch_size))

    @property
    def fine_tuning(self) -> Params:
        """The same recipe for the second phase, in which layers of the base are trained too."""
        return dataclasses.replace(
            self,
            epochs=self.fine_tune_epochs,
            train_steps=None,
            learning_rate=self.fine_tune_learning_rate,
        )

    def check_image_size(self, shape: ImageShape) -> None:
        """Refuse images that the network's layers would make vanish, or that it is not made for.

        Raises:
            ValueError: one line that names the sizes and the recipes that take such images.
        """
        if not (objection := self._objection(shape.height, shape.width)):
            return
        fitting = [
            name
            for name, make in RECIPES.items()
            if not NETWORKS[make().network].needs_base and not make()._objection(*shape[:2])
        ]
        # A recipe that fits by itself does not with the same setting on top.
        ways = ["change that setting"] if "trainer." in objection else []
        ways += [f"take recipe {' or '.join(fitting)}"] if fitting else []
        raise ValueError(f"images of {shape} are too {objection}: {', or '.join([*ways, 'set data.size'])}")

    def check_base(self) -> None:
        """Refuse a recipe that retrains nothing.

        Raises:
            ValueError: one line that says what to set.
        """
        if NETWORKS[self.network].needs_base and not self.base:
            raise ValueError(
                f"the network {self.network!r} needs trainer.base: a .keras file, or a name of "
                "keras.applications such as MobileNetV2"
            )
        if self.fine_tune and self.network != "retrain":
            raise ValueError(
                f"the network {self.network!r} has no layers for trainer.fine_tune: take recipe retrain"
            )
        if self.base and not NETWORKS[self.network].needs_base:
            raise ValueError(f"the network {self.network!r} has no base: take recipe retrain or pretrained")

    def _objection(self, height: int, width: int) -> str:
        """Why images of that size are too small or too large; empty where they are not."""
        least, most = min(height, width), max(height, width)
        if self.crop:
            if least < self.crop:
                return f"small for trainer.crop={self.crop}"
            if most > 2 * self.crop:
                return f"large for trainer.crop={self.crop}, which would show less than half of a side"
            least = most = self.crop
        if self.shift_fill == "reflect" and min(height, width) <= self.shift:
            return f"small for trainer.shift={self.shift} with trainer.shift_fill=reflect"
        if least <= self.answer_shift:
            return f"small for trainer.answer_shift={self.answer_shift}"
        known = NETWORKS[self.network]
        if least < (limit := known.smallest_image):
            return f"small for the network {self.network!r}, which takes {limit} x {limit} or larger"
        if (limit := known.largest_image or most) < most:
            return f"large for the network {self.network!r}, which takes {limit} x {limit} or smaller"
        return ""

    def scaled(self, replicas: int) -> Params:
        """The same recipe for several replicas at once: larger steps, with a learning rate to match.

        The batch grows with the replicas; the rate grows likewise for SGD (Goyal et al., arXiv 1706.02677)
        and with the square root for Adam (Malladi et al., arXiv 2205.10287). Epochs stay, so the steps get
        fewer; a number of steps that was asked for stays too.
        """
        if replicas == 1:
            return self
        growth = replicas if self.optimizer == "sgd" else replicas**0.5
        return dataclasses.replace(
            self,
            batch_size=self.batch_size * replicas,
            learning_rate=self.learning_rate * growth,
            fine_tune_learning_rate=self.fine_tune_learning_rate * growth,
        )


def tutorial() -> Params:
    """TensorFlow's layers tutorial, to the letter: 3,274,634 parameters, 20,000 steps of plain SGD.

    Here 20,000 steps in bfloat16 end at 96.88 % on test with seed 0 (dropout drawn in bfloat16, two cores)
    and at 96.86 % with seed 2 (drawn in float32, an H200); the real tf.estimator 2.15 at 97.06 %; so the
    gate of this recipe is 96 %. Two cores with avx512_bf16 take 2,900 to 3,200 images/s, twelve minutes in
    all.

    The 97.33 % that the tutorial prints is from TensorFlow before 1.0, whose default initializer was
    another: `--set trainer.initializer=unit_scaling` ends at 97.58, 97.36 and 97.38 % with seeds 0 to 2
    (float32 on two cores but for seed 1, bfloat16 on an H200).
    """
    return Params(
        network="tutorial",
        batch_size=100,
        train_steps=20_000,
        optimizer="sgd",
        learning_rate=0.001,
        dropout=0.4,
        validate_each_epoch=False,
    )


def fast() -> Params:
    """The fewest seconds to a dependable 99.2 % on test, on two CPU cores.

    Over seeds 0 to 4: median 99.38 %, lowest 99.25 %, highest 99.43 % on test; 10.6 s of training, 11,200
    images/s, on two cores with avx512_bf16 (`mnist run --set trainer.seed=0` and so on).
    """
    return Params(
        network="compact",
        batch_size=128,
        epochs=2,
        optimizer="adamw",
        learning_rate=0.01,
        schedule="one_cycle",
        warmup=0.25,
        weight_decay=0.05,
        shift=1,
        validate_each_epoch=False,
    )


def accurate() -> Params:
    """The most accurate single model here, for those who can wait twenty minutes, on two CPU cores.

    Over seeds 0 to 2: 99.68 % on test each time; 99.66, 99.68 and 99.72 % on validation. Twenty minutes of
    training, 2,760 to 2,900 images/s, on two cores with avx512_bf16 (`mnist run --recipe accurate --set
    trainer.seed=0` and so on). Measured when Keras drew dropout's random numbers in bfloat16.
    """
    return Params(
        network="deep",
        batch_size=128,
        epochs=60,
        optimizer="adamw",
        learning_rate=0.01,
        schedule="one_cycle",
        warmup=0.2,
        weight_decay=0.05,
        dropout=0.3,
        shift=2,
        rotation=12,
        scale=0.12,
        shear=0.15,
        elastic=1.0,
        weight_average=0.995,
    )


def residual() -> Params:
    """A small residual network for pictures of 32 to 128 pixels, sized for two CPU cores.

    By its operations: eight epochs of 55,000 pictures of 32 x 32 x 3 are 7e13. Not run in full yet.
    """
    return Params(
        network="residual",
        batch_size=128,
        epochs=8,
        optimizer="adamw",
        learning_rate=0.01,
        schedule="one_cycle",
        warmup=0.25,
        weight_decay=0.05,
        shift=2,
        validate_each_epoch=False,
    )


def cifar() -> Params:
    """Small photos, for those who can wait two hours on two CPU cores.

    Fifteen epochs of CIFAR-10's 45,834 training pictures are 1.9e15 operations, 112 images/s on two cores
    with avx512_bf16. With CIFAR-10 as JPEG files, in bfloat16 and with seeds 0 and 1: 92.10 and
    92.07 % on test, 92.32 and 91.96 % on validation (`mnist run --data-dir cifar-10 --recipe cifar`);
    91.97 % on test without answer_shift (seed 0), which makes an answer cost three times as much.

    In half of the time, `--set trainer.epochs=7 --set trainer.shift=2 --set trainer.answer_shift=0`:
    91.26 %.
    """
    return Params(
        network="cifar",
        batch_size=512,
        epochs=15,
        optimizer="muon_sgd",
        learning_rate=0.75,
        momentum=0.85,
        weight_decay=0.009,
        schedule="polynomial_decay",
        schedule_arguments={"end_learning_rate": 0.0},
        label_smoothing=0.2,
        shift=3,
        shift_fill="reflect",
        flip=True,
        mirror=True,
        answer_shift=1,
        validate_each_epoch=False,
    )


def cifar_tutorial() -> Params:
    """TensorFlow's deep CNN tutorial, to the letter: 1,068,298 parameters, 100,000 steps of plain SGD.

    The learning rate would fall by ten for the first time at step 136,718. The tutorial reports about 86 %
    on test for CIFAR-10. Here 82.94 %, in bfloat16 on an H200, of its pictures as JPEG files, which are not
    the original pixels, and with a twelfth of them set aside for validation.
    """
    return Params(
        network="cifar_tutorial",
        batch_size=128,
        train_steps=100_000,
        optimizer="sgd",
        learning_rate=0.1,
        schedule="exponential_decay",
        # 350 epochs of 50,000 pictures.
        schedule_arguments={"decay_steps": 136_718, "decay_rate": 0.1, "staircase": True},
        crop=24,
        flip=True,
        brightness=63 / 255,
        contrast=0.8,
        weight_average=0.9999,
        weight_average_grows=True,
        validate_each_epoch=False,
    )


def retrain() -> Params:
    """New categories for a network that was trained before: its features, and a new last layer.

    `--set trainer.base=FILE.keras`, `run:ID` or a name of keras.applications; a few dozen pictures of each
    class do. With MobileNet up to its twelfth block (ImageNet, 96 x 96) and the first 100 pictures of each
    class of CIFAR-10, 917 of them to train on: 72.6 % on the first 100 test pictures of each class, in
    126 s of CPU for the whole run, on a busy machine. (`mnist run --recipe retrain --set
    trainer.base=FILE.keras --set gates.accuracy=0.5 --set gates.class_accuracy=0.3 --set
    gates.calibration_error=1 --set gates.robustness_examples=0`)
    """
    return Params(
        network="retrain",
        batch_size=100,
        epochs=40,
        optimizer="adamw",
        learning_rate=0.01,
        schedule="one_cycle",
        warmup=0.1,
        weight_decay=1.0,
        dropout=0.7,
        flip=True,
        mirror=True,
        validate_each_epoch=False,
    )


def pretrained() -> Params:
    """A network that was trained before, with its own classes: judged and pushed; nothing is trained.

    `--set trainer.base=FILE.keras`, or a name of keras.applications. Labels of the data are its own.
    """
    return Params(network="pretrained", batch_size=32, epochs=1, learning_rate=0.001)


RECIPES = {
    "tutorial": tutorial,
    "fast": fast,
    "accurate": accurate,
    "residual": residual,
    "cifar": cifar,
    "cifar-tutorial": cifar_tutorial,
    "retrain": retrain,
    "pretrained": pretrained,
}


def resolve(name: str, **overrides: Any) -> Params:
    """The hyper-parameters of a recipe, with some of them changed.

    Setting `epochs` replaces the recipe's `train_steps`, and the other way round.

    Args:
        name: a key of RECIPES.
        **overrides: fields of Params.

    Raises:
        ValueError: one line that names the unknown recipe, the unknown field or the wrong value.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}{_hint(name, list(RECIPES))}")
    fields = [field.name for field in dataclasses.fields(Params)]
    for key in overrides:
        if key not in fields:
            raise ValueError(f"recipe {name!r} has no field {key!r}{_hint(key, fields)}")
    values = dataclasses.asdict(RECIPES[name]())
    if overrides.get("train_steps") is not None and "epochs" not in overrides:
        values["epochs"] = None
    if overrides.get("epochs") is not None and "train_steps" not in overrides:
        values["train_steps"] = None
    try:
        return Params(**(values | overrides))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:1])
        reason = first["msg"].removeprefix("Value error, ")
        got = f", got {first['input']!r}" if where else ""
        raise ValueError(f"recipe {name!r}: {where + ': ' if where else ''}{reason}{got}") from None


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
