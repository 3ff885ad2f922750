"""What a training begins with: variables of an earlier run, a checkpoint or a SavedModel, by name."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from trainer import checkpoints
from trainer.checkpoints import Checkpoint
from trainer.estimator_model import EstimatorModel

# What a training begins with, among the settings of trainer.train.run_fn.
START_SETTINGS = (
    "warm_start_checkpoint",
    "warm_start_fingerprint",
    "vars_to_warm_start",
    "var_name_to_prev_var_name",
    "continue",
    "evaluate_only",
)
# The attribute of our SavedModels that has the variables by their names.
WEIGHTS = "_weights"
_SAVED_MODEL = "saved_model.pb"
_PLACES = ("", "Format-Serving", "serving_model_dir")  # TFX's Trainer writes into one of these
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SHOWN = 5  # names in a message

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Values:
    """Variables of something that was trained before.

    Attributes:
        place: where they are, for messages.
        shapes: by name.
        read: the value of a name.
        run: where they are a checkpoint of a run of this project: all of it.
    """

    place: str
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    run: Checkpoint | None = None


@dataclass(frozen=True)
class Start:
    """tf.estimator.WarmStartSettings, and how the training goes on from there.

    Attributes:
        values: what there is.
        variables: a regular expression: which of the model's variables are warm-started, by the beginning
            of their names.
        renamed: the name there, by the name here, where they differ.
        goes_on: it is the same training: optimizer, step and all.
        trains: whether any step is made; otherwise the values are measured and exported.
    """

    values: Values
    variables: str = ".*"
    renamed: Mapping[str, str] = field(default_factory=dict)
    goes_on: bool = False
    trains: bool = True

    @classmethod
    def of(cls, settings: Mapping[str, Any], folder: str | None) -> Start | None:
        """What the settings ask for; None where the training begins anew.

        Args:
            settings: of trainer.train.run_fn.
            folder: where the values are; none or empty: nowhere.

        Raises:
            ValueError: one line, where there is nothing to begin with.
        """
        if not folder:
            return None
        found = values(folder, settings.get("warm_start_checkpoint", ""))
        trains = not settings.get("evaluate_only", False)
        return cls(
            found,
            settings.get("vars_to_warm_start", ".*"),
            settings.get("var_name_to_prev_var_name", {}),
            # Averaged weights are a part of the optimizer's state.
            settings.get("continue", False) or (not trains and found.run is not None),
            trains,
        )

    @property
    def step(self) -> int:
        """The step that the training goes on from."""
        return self.values.run.step if self.goes_on and self.values.run else 0

    def check(self, model: EstimatorModel) -> None:
        """See whether the values fit a model.

        Raises:
            ValueError: one line: what does not fit, and what to do.
        """
        if self.goes_on:
            self.checkpoint(model)
        else:
            self._matching(model)

    def checkpoint(self, model: EstimatorModel) -> Checkpoint:
        """The state to go on from; what the earlier run has measured and selected stays its own.

        Raises:
            ValueError: where it is not the state of such a model.
        """
        run = self.values.run
        if run is None:
            raise ValueError(
                f"trainer.continue: {self.values.place} is no checkpoint of a run, which has the "
                "optimizer's state too: leave trainer.continue out to begin with its weights"
            )
        arrays = run.arrays[: len(run.names)]
        ours = [tuple(variable.shape) for variable in model.state()]
        theirs = [array.shape for array in arrays]
        if ours != theirs:
            raise ValueError(
                f"trainer.continue: {self.values.place} is of another model or optimizer: "
                f"{_first_difference(model.state_names(), ours, run.names, theirs)}; take the recipe and "
                "the functions of that run, or leave trainer.continue out to begin with its weights"
            )
        nothing = {"history": {}, "seconds": 0.0, "selection": {"best": -1.0, "since_best": 0}}
        return dataclasses.replace(run, arrays=arrays, progress=nothing)

    def apply(self, model: EstimatorModel) -> None:
        """Put the values into a model's variables.

        Raises:
            ValueError: as check does; nothing is changed then.
        """
        if self.goes_on:
            run = self.checkpoint(model)
            for variable, array in zip(model.state(), run.arrays, strict=True):
                variable.assign(array)
            return
        found = self._matching(model)
        named = model.named_variables()
        for name, old in found.items():
            named[name].assign(self.values.read(old))
        _LOG.info("%d variables begin with those of %s", len(found), self.values.place)

    def _matching(self, model: EstimatorModel) -> dict[str, str]:
        """The names there, by the names here."""
        named = model.named_variables()
        if unknown := sorted(set(self.renamed) - set(named)):
            raise ValueError(
                f"trainer.var_name_to_prev_var_name: the model has no variable {unknown[0]!r}; there are "
                f"{_listed(named)}"
            )
        chosen = [name for name in named if re.match(self.variables, name)]
        if not chosen:
            raise ValueError(
                f"trainer.vars_to_warm_start={self.variables} matches no variable of the model; there are "
                f"{_listed(named)}"
            )
        there = self.values.shapes
        found = {}
        missing = []
        for name in chosen:
            old = self.renamed.get(name, name)
            if old not in there:
                # tf.estimator looks at trainable variables alone; here running means are taken if there.
                if named[name].trainable or name in self.renamed or not self.trains:
                    missing.append(old)
                continue
            if tuple(named[name].shape) != there[old]:
                raise ValueError(
                    f"trainer.warm_start_from: {name} is {list(named[name].shape)} here, and {old} is "
                    f"{list(there[old])} in {self.values.place}: leave it out with "
                    "trainer.vars_to_warm_start"
                )
            found[name] = old
        if missing:
            raise ValueError(
                f"trainer.warm_start_from: {self.values.place} has no {_listed(missing)}; there are "
                f"{_listed(there)}: give trainer.var_name_to_prev_var_name.{missing[0]}=NAME_THERE, or "
                "leave it out with trainer.vars_to_warm_start"
            )
        return found


def values(folder: str, checkpoint: str = "") -> Values:
    """Find out what a folder holds.

    Args:
        folder: a model_run artifact, a folder with a checkpoint of TensorFlow's (an Estimator's model_dir),
            or a SavedModel, also in the folder that TFX's Trainer puts it into.
        checkpoint: the name of one checkpoint there; empty: the last.

    Raises:
        ValueError: one line, where there is nothing of the kind, or it cannot be read.
    """
    # TFX adds a folder to the address of a model, whether it is there or not.
    if not tf.io.gfile.isdir(folder):
        folder = folder.rstrip("/").rpartition("/")[0]
    own = checkpoints.kept(folder)
    if checkpoint.endswith(".npz"):
        own = [path for path in own if path.endswith(f"/{checkpoint}")]
        if not own:
            raise ValueError(f"trainer.warm_start_from: there is no checkpoint {checkpoint} in {folder}")
    if own and (not checkpoint or checkpoint.endswith(".npz")):
        run = checkpoints.read(own[-1])
        arrays = dict(zip(run.names, run.arrays, strict=False))
        shapes = {name: array.shape for name, array in arrays.items()}
        return Values(own[-1], shapes, arrays.__getitem__, run)
    prefix = f"{folder}/{checkpoint}" if checkpoint else tf.train.latest_checkpoint(folder)
    for place in _PLACES if prefix is None else ():
        saved = "/".join(filter(None, (folder, place)))
        if tf.io.gfile.exists(f"{saved}/{_SAVED_MODEL}"):
            return _of_tensorflow(f"{saved}/variables/variables", saved)
    if prefix is None:
        raise ValueError(
            f"trainer.warm_start_from: {folder} has no checkpoint and no SavedModel: give a run as run:ID, "
            "an Estimator's model_dir, a checkpoint's path without .index, or a SavedModel's folder"
        )
    return _of_tensorflow(prefix, prefix)


def _of_tensorflow(prefix: str, place: str) -> Values:
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (ValueError, tf.errors.OpError) as error:
        message = str(error).splitlines()[0]
        raise ValueError(f"trainer.warm_start_from: {place} cannot be read: {message}") from None
    shapes = reader.get_variable_to_shape_map()
    keys = {_name(key): key for key in shapes if key != _GRAPH}
    if _GRAPH in shapes:
        graph = TrackableObjectGraph.FromString(reader.get_tensor(_GRAPH))
        attributes = [attribute for node in graph.nodes for attribute in node.attributes]
        # TensorFlow 2 keeps variables by their place in an object; their own names need not be unique.
        times = Counter(attribute.full_name for attribute in attributes)
        for attribute in attributes:
            if attribute.full_name and times[attribute.full_name] == 1:
                keys.setdefault(attribute.full_name, attribute.checkpoint_key)
    return Values(
        place,
        {name: tuple(shapes[key]) for name, key in keys.items()},
        lambda name: reader.get_tensor(keys[name]),
    )


def _name(key: str) -> str:
    """Of a variable, from its key in a checkpoint of TensorFlow 2, where it is one of our SavedModels'."""
    name = key.removesuffix(_VALUE)
    own = name.removeprefix(f"{WEIGHTS}/")
    # There a slash in a name is `.S`, and a point is two.
    return re.sub(r"\.(.)", lambda found: "/" if found[1] == "S" else ".", own) if own != name else name


def _listed(names: Any) -> str:
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _first_difference(
    ours: list[str],
    our_shapes: list[tuple[int, ...]],
    theirs: tuple[str, ...],
    their_shapes: list[tuple[int, ...]],
) -> str:
    for name, shape, other, other_shape in zip(ours, our_shapes, theirs, their_shapes, strict=False):
        if shape != other_shape:
            return f"{name} is {list(shape)} here, and {other} is {list(other_shape)} there"
    return f"{len(ours)} variables here, {len(theirs)} there"
