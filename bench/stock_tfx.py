"""The side that the pipeline is compared with: the same network and steps in TFX as its examples use it.

Pixels are float features in TFRecords (made before the clock starts), read by ImportExampleGen; the schema
is inferred; Transform materialises what it makes of them, and the Trainer reads that. Beam's options are
TFX's, but for the runner: Beam's default one downloads a program first.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # before TensorFlow is imported

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from apache_beam.options.pipeline_options import StandardOptions
from tensorflow_model_analysis.proto import config_pb2 as tfma
from tfx import v1 as tfx
from tfx_bsl.public import tfxio

from trainer import recipes
from trainer.features import ImageShape
from trainer.model import build_network
from trainer.optimizers import build_optimizer

IMAGE, LABEL = "image_floats", "image_class"
SIDE, CLASSES = 28, 10
TRAINING, HELD_OUT = 60_000, 5_000


def write_records(data: Path, folder: Path) -> None:
    """MNIST's training images as tf.Examples of 784 floats in [0, 1]."""
    folder.mkdir(parents=True)
    pixels = np.frombuffer((data / "train-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    labels = np.frombuffer((data / "train-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    with tf.io.TFRecordWriter(str(folder / "mnist.tfrecord")) as writer:
        for image, label in zip(pixels.reshape(-1, SIDE * SIDE) / 255, labels, strict=True):
            writer.write(_example(image, label).SerializeToString())


def _example(image: Iterable[float], label: int) -> tf.train.Example:
    return tf.train.Example(
        features=tf.train.Features(
            feature={
                IMAGE: tf.train.Feature(float_list=tf.train.FloatList(value=image)),
                LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
        )
    )


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What the examples of TFX do with MNIST: nothing but new names."""
    return {f"{IMAGE}_xf": inputs[IMAGE], f"{LABEL}_xf": inputs[LABEL]}


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Train the recipe's network on what Transform wrote."""
    params = recipes.resolve(fn_args.custom_config["recipe"])
    steps = params.steps(TRAINING - HELD_OUT)
    transform = tft.TFTransformOutput(fn_args.transform_output)

    def batches(files: list[str], epochs: int | None) -> tf.data.Dataset:
        options = tfxio.TensorFlowDatasetOptions(
            batch_size=params.batch_size, label_key=f"{LABEL}_xf", num_epochs=epochs
        )
        read = fn_args.data_accessor.tf_dataset_factory(
            files, options, transform.transformed_metadata.schema
        )
        return read.map(lambda x, y: (tf.reshape(x[f"{IMAGE}_xf"], [-1, SIDE, SIDE, 1]), y))

    keras.utils.set_random_seed(params.seed)
    network = build_network(params, ImageShape(SIDE, SIDE), CLASSES)
    network.compile(
        optimizer=build_optimizer(params, steps),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    network.fit(batches(fn_args.train_files, None), steps_per_epoch=steps, epochs=1, verbose=0)
    print(network.evaluate(batches(fn_args.eval_files, 1), verbose=0)[1])
    layer = transform.transform_features_layer()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = transform.raw_feature_spec()
        spec.pop(LABEL)
        image = layer(tf.io.parse_example(examples, spec))[f"{IMAGE}_xf"]
        logits = network(tf.reshape(image, [-1, SIDE, SIDE, 1]), training=False)
        return {"probabilities": tf.nn.softmax(logits)}

    network.tft_layer = layer
    tf.saved_model.save(network, fn_args.serving_model_dir, signatures={"serving_default": serve})


def pipeline(records: Path, root: Path, recipe: str) -> tfx.dsl.Pipeline:
    """TFX's standard components, each as its documentation shows it."""
    splits = tfx.proto.SplitConfig(
        splits=[
            tfx.proto.SplitConfig.Split(name="train", hash_buckets=11),
            tfx.proto.SplitConfig.Split(name="eval", hash_buckets=1),
        ]
    )
    example_gen = tfx.components.ImportExampleGen(
        input_base=str(records), output_config=tfx.proto.Output(split_config=splits)
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = tfx.components.StatisticsGen(examples=examples)
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = tfx.components.SchemaGen(statistics=statistics, infer_feature_shape=True)
    schema = schema_gen.outputs["schema"]
    validator = tfx.components.ExampleValidator(statistics=statistics, schema=schema)
    transform = tfx.components.Transform(
        examples=examples, schema=schema, preprocessing_fn="bench.stock_tfx.preprocessing_fn"
    )
    trainer = tfx.components.Trainer(
        run_fn="bench.stock_tfx.run_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        train_args=tfx.proto.TrainArgs(),
        eval_args=tfx.proto.EvalArgs(),
        custom_config={"recipe": recipe},
    )
    evaluator = tfx.components.Evaluator(
        examples=examples, model=trainer.outputs["model"], eval_config=_eval_config()
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(root / "serving"))
        ),
    )
    return tfx.dsl.Pipeline(
        pipeline_name="stock",
        pipeline_root=str(root / "pipelines"),
        components=[
            example_gen,
            statistics_gen,
            schema_gen,
            validator,
            transform,
            trainer,
            evaluator,
            pusher,
        ],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(root / "metadata.db")
        ),
    )


def _eval_config() -> tfma.EvalConfig:
    threshold = tfma.MetricThreshold(value_threshold=tfma.GenericValueThreshold(lower_bound={"value": 0.9}))
    accuracy = tfma.MetricConfig(class_name="SparseCategoricalAccuracy", threshold=threshold)
    return tfma.EvalConfig(
        model_specs=[tfma.ModelSpec(label_key=LABEL, prediction_key="probabilities")],
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[LABEL])],
        metrics_specs=[tfma.MetricsSpec(metrics=[accuracy])],
    )


def main() -> None:
    """Write the records, or run the pipeline on them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, required=True, help="folder of the TFRecords")
    parser.add_argument("--write-from", type=Path, help="write them from this folder of IDX files, and end")
    parser.add_argument("--root", type=Path, help="folder for the run")
    parser.add_argument("--recipe", default="fast")
    args = parser.parse_args()
    if args.write_from:
        write_records(args.write_from, args.records)
        return
    StandardOptions.DEFAULT_RUNNER = "FnApiRunner"
    tfx.orchestration.LocalDagRunner().run(pipeline(args.records, args.root, args.recipe))
    pushed = list((args.root / "serving").iterdir())
    print(f"pushed {len(pushed)}")


if __name__ == "__main__":
    main()
