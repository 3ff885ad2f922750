"""A base network, trained before on other pictures: a .keras file, keras.applications, or a run here."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from trainer import model, warm_start
from trainer.estimator_model import variable_names
from trainer.features import ImageShape
from trainer.recipes import Params

DESCRIPTION_FILE = "assets.extra/network.json"
_SUFFIX = ".keras"
_LEAST_SIDE = 96  # pixels that a network of keras.applications gets, of smaller images too
# As keras.applications.imagenet_utils calls what it does to 0 … 255; and two that it has no name for.
_MODES = ("tf", "torch", "caffe")


@dataclass(frozen=True)
class Base:
    """A network with its weights.

    Attributes:
        network: from float32 [N, height, width, C] to a map of features, features or logits.
        input_kind: what it gets: a mode of keras.applications, `unit`, `bytes`, or the name of a module of
            keras.applications, whose preprocess_input says it.
        size: height and width that it gets, pixels.
        channels: that it gets.
    """

    network: keras.Model
    input_kind: str
    size: tuple[int, int]
    channels: int = 3

    @classmethod
    def load(cls, params: Params, shape: ImageShape, with_top: bool = False) -> Base:
        """Read what `params.base` names.

        Args:
            params: the recipe.
            shape: of the images.
            with_top: whether to keep the layers that make the logits of a network of keras.applications.

        Raises:
            ValueError: one line: what is missing or wrong, and what to do.
        """
        params.check_base()
        if params.base.endswith(_SUFFIX):
            return cls._of_file(params)
        if Path(params.base).is_dir():
            return cls._of_run(params, with_top)
        return cls._of_application(params, shape, with_top)

    @classmethod
    def _of_file(cls, params: Params) -> Base:
        try:
            network = keras.models.load_model(params.base, compile=False)
        except Exception as error:  # zip, JSON, Keras: each has its own
            raise ValueError(f"trainer.base={params.base}: {_first_line(error)}") from error
        if not isinstance(network, keras.Model) or len(network.inputs) != 1 or len(network.outputs) != 1:
            raise ValueError(f"trainer.base={params.base}: this is no network of one input and one output")
        _, height, width, channels = (*network.inputs[0].shape, None, None)[:4]
        if channels != 3:
            raise ValueError(f"trainer.base={params.base}: the network gets no pictures in colour")
        kind: str = params.base_input
        if kind == "auto":
            kind = _module_of(network.name)
            if not kind:
                raise ValueError(
                    f"trainer.base={params.base}: nothing says what the network {network.name!r} gets: set "
                    "trainer.base_input: tf (-1 … 1), torch, caffe, unit (0 … 1) or bytes (0 … 255)"
                )
        return cls(network, kind, (height or _LEAST_SIDE, width or _LEAST_SIDE))

    @classmethod
    def _of_run(cls, params: Params, with_top: bool) -> Base:
        about = Path(params.base, DESCRIPTION_FILE)
        if not about.is_file():
            raise ValueError(
                f"trainer.base={params.base}: this is no model of a run here whose network is one of "
                "trainer.networks"
            )
        given = json.loads(about.read_text())
        shape = ImageShape(*given["image_shape"])
        theirs = dataclasses.replace(Params(**given["params"]), precision="float32")
        network = model.build_network(theirs, shape, given["num_classes"])
        values = warm_start.values(params.base)
        for name, variable in zip(variable_names(network), network.variables, strict=True):
            if name in values.shapes:
                variable.assign(values.read(name))
        if not with_top:
            network = keras.Model(network.inputs, network.layers[-1].input, name=network.name)
        kind = params.base_input if params.base_input != "auto" else "unit"
        return cls(network, kind, (shape.height, shape.width), shape.channels)

    @classmethod
    def _of_application(cls, params: Params, shape: ImageShape, with_top: bool) -> Base:
        make = getattr(keras.applications, params.base, None)
        if not inspect.isfunction(make):
            known = [name for name, value in vars(keras.applications).items() if inspect.isfunction(value)]
            near = difflib.get_close_matches(params.base, known, n=1)
            hint = f": did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
            raise ValueError(f"trainer.base={params.base}: this is no .keras file and no network{hint}")
        arguments: dict[str, Any] = {"include_top": with_top}
        if with_top:
            arguments["classifier_activation"] = None
        else:
            size = (max(shape.height, _LEAST_SIDE), max(shape.width, _LEAST_SIDE))
            arguments["input_shape"] = (*size, 3)
        if params.base_weights and not Path(params.base_weights).is_file():
            raise ValueError(f"trainer.base_weights={params.base_weights}: there is no such file")
        try:
            with _nothing_fetched():
                network = make(weights=params.base_weights or "imagenet", **arguments)
        except _MissingFileError as missing:
            raise ValueError(
                f"trainer.base={params.base}: its weights are not here: fetch {missing.url} to "
                f"{missing.place}, or set trainer.base_weights to a copy of it"
            ) from None
        except Exception as error:
            raise ValueError(
                f"trainer.base={params.base}: {params.base_weights or 'the weights'} cannot be read: "
                f"{_first_line(error)}"
            ) from error
        kind = params.base_input if params.base_input != "auto" else make.__module__.rpartition(".")[2]
        return cls(network, kind, network.inputs[0].shape[1:3])


class BaseInput(keras.layers.Layer):
    """Images in [0, 1], grey or colour, to what a base network gets."""

    def __init__(self, base: Base, **kwargs: object) -> None:
        """Make the layer for a base."""
        super().__init__(**kwargs)
        self._kind, self._size, self._channels = base.input_kind, base.size, base.channels

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """float32 [N, H, W, C] to float32 [N, height, width, channels], scaled as the base was trained."""
        if images.shape[-1] < self._channels:
            images = tf.repeat(images, 3, axis=-1)
        elif images.shape[-1] > self._channels:
            images = tf.image.rgb_to_grayscale(images)
        if tuple(images.shape[1:3]) != tuple(self._size):
            # LiteRT has no antialiasing, and nothing larger needs it.
            shrinks = images.shape[1] > self._size[0] or images.shape[2] > self._size[1]
            images = tf.image.resize(images, self._size, method="bilinear", antialias=shrinks)
        if self._kind == "unit":
            return images
        if self._kind == "bytes":
            return images * 255.0
        if self._kind in _MODES:
            return keras.applications.imagenet_utils.preprocess_input(
                images * 255.0, data_format="channels_last", mode=self._kind
            )
        module = importlib.import_module(f"keras.applications.{self._kind}")
        return module.preprocess_input(images * 255.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The base's size and channels."""
        return (input_shape[0], *self._size, self._channels)


def describe(model_dir: str, params: Params, shape: ImageShape, num_classes: int) -> None:
    """Write next to a SavedModel what its network is, so that it can be a base."""
    about = {
        "params": dataclasses.asdict(params),
        "image_shape": list(shape),
        "num_classes": num_classes,
    }
    path = f"{model_dir}/{DESCRIPTION_FILE}"
    tf.io.gfile.makedirs(path.rpartition("/")[0])
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps(about, sort_keys=True))


class _MissingFileError(Exception):
    """A file of weights that Keras would fetch."""

    def __init__(self, url: str, place: Path) -> None:
        super().__init__(url)
        self.url, self.place = url, place


@contextlib.contextmanager
def _nothing_fetched() -> Iterator[None]:
    """Keras takes files of weights out of its cache, and says which is missing instead of fetching it."""
    utils: Any = importlib.import_module("keras.src.utils.file_utils")

    def cached(fname: str, origin: str, cache_subdir: str, **_: Any) -> str:
        # The user's own cache: a run has a home of its own for Keras.
        place = Path.home() / ".keras" / cache_subdir / fname
        if not place.is_file():
            raise _MissingFileError(origin, place)
        return str(place)

    fetch = utils.get_file
    utils.get_file = cached
    try:
        yield
    finally:
        utils.get_file = fetch


def _module_of(name: str) -> str:
    """The module of keras.applications that makes networks of such names; empty: none does."""
    modules = [module for module, value in vars(keras.applications).items() if inspect.ismodule(value)]
    begun = name.lower().replace("-", "_")
    # A network is called mobilenetv2_1.00_96 where its module is mobilenet_v2.
    fitting = [module for module in modules if begun.startswith((module, module.replace("_v", "v")))]
    return max(fitting, key=len, default="")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n\n")[0].split())[:300] or type(error).__name__
