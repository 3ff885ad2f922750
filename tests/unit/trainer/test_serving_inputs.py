"""What a server makes of a request is what Transform's graph made of the example, to the bit."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from PIL import Image
from tensorflow_transform import beam as tft_beam
from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata

from trainer import features, pictures
from trainer.features import ImageInput, ImageShape
from trainer.preprocessing import preprocessing_fn
from trainer.serving_inputs import ServingInputs

COLOUR, GREY = ImageShape(24, 16, 3), ImageShape(24, 16, 1)


def photo(seed: int, height: int, width: int, form: str = "JPEG", turned: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turned
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, exif=exif)
    return buffer.getvalue()


PHOTOS = [photo(0, 40, 60), photo(1, 24, 16, "PNG"), photo(2, 7, 9), photo(3, 60, 30, turned=6)]


def transform(folder: Path, images: ImageInput) -> tft.TFTransformOutput:
    """Transform's graph, as the pipeline makes it."""
    spec = {
        features.IMAGE: tf.io.FixedLenFeature([1], tf.string),
        features.LABEL: tf.io.FixedLenFeature([1], tf.int64),
    }
    config = {"images": images._asdict()}
    with beam.Pipeline(runner=FnApiRunner()) as pipeline, tft_beam.Context(str(folder / "temporary")):
        stored = PHOTOS[0] if images.encoded else bytes(np.prod(images.shape))
        rows = pipeline | beam.Create([{features.IMAGE: [stored], features.LABEL: [0]}])
        found = (rows, DatasetMetadata.from_feature_spec(spec)) | tft_beam.AnalyzeDataset(
            functools.partial(preprocessing_fn, custom_config=config)
        )
        _ = found | tft_beam.WriteTransformFn(str(folder / "graph"))
    return tft.TFTransformOutput(str(folder / "graph"))


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_photo_is_the_same_in_training_and_at_the_server(tmp_path: Path, fit: str) -> None:
    images = ImageInput(COLOUR, encoded=True, fit=fit)
    output = transform(tmp_path, images)
    layer, inputs = output.transform_features_layer(), ServingInputs(images, output)

    @tf.function(autograph=False)
    def train(raw: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        return layer({features.IMAGE: raw[:, None], features.LABEL: label[:, None]})[features.IMAGE]

    @tf.function(autograph=False)
    def serve(files: tf.Tensor) -> tf.Tensor:
        return inputs.from_files(files)

    trained = train(tf.constant(PHOTOS), tf.zeros([len(PHOTOS)], tf.int64)).numpy()
    assert trained.shape == (4, *COLOUR)
    np.testing.assert_array_equal(trained, serve(tf.constant(PHOTOS)))
    for number, one in enumerate(PHOTOS):
        np.testing.assert_array_equal(trained[number], serve(tf.constant([one]))[0])


@pytest.mark.slow
@pytest.mark.parametrize("images", [ImageInput(COLOUR), ImageInput(COLOUR, True), ImageInput(GREY, True)])
def test_arrays_become_what_training_saw(tmp_path: Path, images: ImageInput) -> None:
    output = transform(tmp_path, images)
    layer, inputs = output.transform_features_layer(), ServingInputs(images, output)
    pixels = np.random.default_rng(0).integers(0, 256, (5, *images.shape), np.uint8)
    given = pixels[..., 0] if images.shape.channels == 1 else pixels
    examples = tf.stack([tf.io.encode_png(one) if images.encoded else one.tobytes() for one in pixels])
    trained = layer({features.IMAGE: examples[:, None], features.LABEL: tf.zeros([5, 1], tf.int64)})
    for served in (
        inputs.from_pixels(tf.constant(given)),
        inputs.from_floats(tf.constant(pixels.astype(np.float32) / 255)),
        inputs.from_examples(examples),
        inputs.from_files(tf.stack([tf.io.encode_png(one) for one in pixels])),
    ):
        np.testing.assert_array_equal(trained[features.IMAGE], served)
        assert served.shape[1:] == images.shape


@pytest.mark.slow
def test_photos_for_a_model_of_pixels(tmp_path: Path) -> None:
    images = ImageInput(COLOUR)
    inputs = ServingInputs(images, transform(tmp_path, images))
    served = inputs.from_files(tf.constant(PHOTOS))
    pixels = pictures.decode_files(tf.constant(PHOTOS), COLOUR, images.fit)
    assert pixels.shape == (4, *COLOUR)
    np.testing.assert_array_equal(np.rint(served * 255), pixels)
