"""The warm-up file: requests that the model itself answers, for each of its signatures."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tests.training_data import Dataset
from trainer import warmup
from trainer.features import DEFAULT_IMAGE_SHAPE, ImageInput
from trainer.train import run_fn


def test_training_leaves_requests_that_the_model_answers(stripes: Dataset, tmp_path: Path) -> None:
    run_fn(stripes.fn_args(tmp_path, train_steps=2, batch_size=20, precision="float32", shift=0))

    model_dir = tmp_path / "Format-Serving"
    signatures = tf.saved_model.load(str(model_dir)).signatures
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(model_dir / warmup.WARMUP_FILE))
    ]
    asked = set()
    for log in logs:
        kind = log.WhichOneof("log_type")
        request = getattr(log, kind).request
        assert (kind == "classify_log") == (request.model_spec.signature_name == "classify")
        if kind == "classify_log":
            examples = request.input.example_list.examples
            inputs = {"inputs": tf.constant([example.SerializeToString() for example in examples])}
        else:
            inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        outputs = signatures[request.model_spec.signature_name](**inputs)
        asked.add((request.model_spec.signature_name, len(next(iter(outputs.values())))))
    assert asked == {(name, count) for name in signatures for count in warmup.BATCHES}
    assert len(logs) == len(asked)


def test_the_same_model_gets_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        warmup.write(str(tmp_path / name), ImageInput(DEFAULT_IMAGE_SHAPE))
    assert (tmp_path / "one" / warmup.WARMUP_FILE).read_bytes() == (
        tmp_path / "two" / warmup.WARMUP_FILE
    ).read_bytes()
