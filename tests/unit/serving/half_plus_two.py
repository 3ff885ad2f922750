"""The models that the conformance suite asks: half_plus_two as in TF Serving's own tests, and one of each
type.

`python -m tests.unit.serving.half_plus_two FOLDER` writes them with a model config file, for a TF Serving
to load.
"""

from __future__ import annotations

import sys
from pathlib import Path

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

NAME = "half_plus_two"
LABELS = {"stable": 1, "canary": 2}


class HalfPlus(tf.Module):
    """x / 2 + constant, for numbers and for examples; signatures that show what becomes of each type."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = tf.Variable(constant, trainable=False)

    def _parsed(self, inputs: tf.Tensor) -> tf.Tensor:
        feature = tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0])
        return tf.io.parse_example(inputs, {"x": feature})["x"] / 2 + self.constant

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x / 2 + self.constant}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def regress(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"outputs": self._parsed(inputs)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"scores": self._parsed(inputs)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify_named(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        score = self._parsed(inputs)
        names = tf.tile([["y", "2y"]], [tf.shape(score)[0], 1])
        return {"classes": names, "scores": tf.concat([score, 2 * score], 1)}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32, "a"), tf.TensorSpec([None], tf.float32, "b")]
    )
    def pair(self, a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"sum": a + b, "difference": a - b}

    @tf.function(input_signature=[tf.TensorSpec([None, 2, 3], tf.int32, "grid")])
    def grid(self, grid: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"transposed": tf.transpose(grid, [0, 2, 1])}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def text(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"upper": tf.strings.upper(text, encoding="utf-8"), "reversed_bytes": text}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.bool, "flag")])
    def flag(self, flag: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"negated": tf.logical_not(flag)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "n")])
    def integers(self, n: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"n": n, "as_uint8": tf.cast(n % 256, tf.uint8), "as_double": tf.cast(n, tf.float64) / 3}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def total(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Without a batch: one number for all."""
        return {"total": tf.reduce_sum(x)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def inverse(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": 1 / x}

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, "x")])
    def column(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Declared as half_plus_two of TF Serving's tests is, whose README asks it with [1.0, 2.0, 5.0]."""
        return {"y": x / 2 + self.constant}

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, "inputs")])
    def regress_numbers(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """A regression of numbers: TF Serving feeds it serialized examples, and TensorFlow says no."""
        return {"outputs": inputs / 2 + self.constant}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def share(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Rows that depend on each other."""
        return {"y": x / tf.reduce_sum(x)}

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.float32, "a"), tf.TensorSpec([None], tf.float32, "b")]
    )
    def unequal(self, a: tf.Tensor, b: tf.Tensor) -> dict[str, tf.Tensor]:
        """Inputs that need not have the same number of rows."""
        return {"outer": a[:, None] * b[None, :]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
    def joined(self, text: tf.Tensor) -> dict[str, tf.Tensor]:
        """One string."""
        return {"all": tf.strings.reduce_join(text)}

    @tf.function(input_signature=[])
    def constants(self) -> dict[str, tf.Tensor]:
        """No input."""
        return {"constant": tf.identity(self.constant)}

    @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, "x")])
    def any_rank(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"shape": tf.shape(x)}


def write(folder: Path, constant: float) -> Path:
    """Write one version; returns its folder."""
    module = HalfPlus(constant)
    signatures = {
        "serving_default": module.predict,
        "regress_x_to_y": module.regress,
        "classify_x_to_y": module.classify,
        "classify_named": module.classify_named,
        "pair": module.pair,
        "grid": module.grid,
        "text": module.text,
        "flag": module.flag,
        "integers": module.integers,
        "total": module.total,
        "inverse": module.inverse,
        "any_rank": module.any_rank,
        "column": module.column,
        "constants": module.constants,
        "joined": module.joined,
        "regress_numbers": module.regress_numbers,
        "share": module.share,
        "unequal": module.unequal,
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    # As old exporters write it, and TF Serving's half_plus_three has it: no shape at all.
    file = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    model.meta_graphs[0].signature_def["any_rank"].inputs["x"].ClearField("tensor_shape")
    file.write_bytes(model.SerializeToString())
    return folder


def write_all(folder: Path) -> Path:
    """Write versions 1 (x / 2 + 2) and 2 (x / 2 + 3) and a model config file; returns the latter."""
    write(folder / NAME / "00000001", 2.0)
    write(folder / NAME / "00000002", 3.0)
    labels = "".join(
        f"    version_labels {{ key: '{label}' value: {version} }}\n" for label, version in LABELS.items()
    )
    config = folder / "models.config"
    config.write_text(
        f"model_config_list {{\n  config {{\n    name: '{NAME}'\n    base_path: '{folder / NAME}'\n"
        f"    model_platform: 'tensorflow'\n    model_version_policy {{ all {{}} }}\n{labels}  }}\n}}\n"
    )
    return config


if __name__ == "__main__":
    write_all(Path(sys.argv[1]).absolute())
