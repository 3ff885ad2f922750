"""The contract between ingest, Transform, the model and serving: names, dtypes, default sizes.

Every other module reads a shape or a class count from the data set; the defaults below describe the
data set that the project is named after and are used only where nothing else is known yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class ImageShape(NamedTuple):
    """The shape of each image of a data set: pixels, and 1 or 3 channels."""

    height: int
    width: int
    channels: int = 1

    def __str__(self) -> str:
        """`28 x 28 pixels`, with the channels where there are several."""
        pixels = f"{self.height} x {self.width} pixels"
        return pixels if self.channels == 1 else f"{pixels} x {self.channels} channels"


class ImageInput(NamedTuple):
    """How examples hold images, and what becomes of them.

    Attributes:
        shape: of the images that the network reads.
        encoded: whether an example's image is a picture file of any size; else it is pixels of `shape`.
        fit: what a picture of another size gets: see trainer.pictures.
    """

    shape: ImageShape
    encoded: bool = False
    fit: str = "crop"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ImageInput:
        """From its fields by name, as JSON has them."""
        return cls(**{**values, "shape": ImageShape(*values["shape"])})


# Keys of a tf.Example as ImageExampleGen writes it, and of what Transform makes of it.
ID = "id"  # where the example comes from: file and place; only in the examples
IMAGE = "image"  # raw: pixels, H * W * C uint8 row-major, or a picture file; then float32 [N, H, W, C]
LABEL = "label"  # int64, 0 … num_classes - 1; [N, 1] raw, [N] transformed
DECODED = "decoded"  # in Transform's graph: the images once decoded, uint8 [N, H, W, C]

# Names of the serving signatures, their inputs and outputs.
SIGNATURE_IMAGE_BYTES = "serving_default"  # picture files of any size
SIGNATURE_PIXELS = "pixels"  # uint8 arrays
SIGNATURE_FLOATS = "floats"  # float32 arrays in [0, 1]
SIGNATURE_EXAMPLES = "examples"  # serialized tf.Examples
SIGNATURE_DECODE = "decode"  # picture files to the pixels that the network gets of them
SIGNATURE_CLASSIFY = "classify"  # serialized tf.Examples, for TF Serving's Classify
IMAGE_BYTES = "image_bytes"  # input of `serving_default`: string [N]
EXAMPLES = "examples"  # input of `examples`: string [N]
CLASSES = "classes"  # output: int64 [N]
CLASS_NAMES = "label"  # output: string [N], the names of `classes`
NAMES = "names"  # output of `decode`: string [N, C], of all classes, by label
PROBABILITIES = "probabilities"  # output: float32 [N, C]
SCORES = "scores"  # output of `classify`: float32 [N, C]
LOGITS = "logits"  # output: float32 [N, C]

# What a picture file of another size gets where the images are digits: see trainer.centring.
FIT_CENTER = "center"

# Splits of the Examples artifact.
TRAIN = "train"
VALIDATION = "validation"
TEST = "test"

# Next to saved_model.pb: the LiteRT model, by TF Serving's name for it.
LITE_FILE = "model.tflite"

# In the model_run artifact: what a killed run leaves for the next one.
CHECKPOINT_FOLDER = "checkpoint"
# There too: the last checkpoints of a finished run, for others to begin with.
KEPT_FOLDER = "kept_checkpoints"

# What trainer.model's function reports of an evaluation.
LOSS = "loss"
METRICS = (LOSS, "accuracy")

# The default data set: MNIST.
DEFAULT_IMAGE_SHAPE = ImageShape(28, 28, 1)
DEFAULT_NUM_CLASSES = 10
