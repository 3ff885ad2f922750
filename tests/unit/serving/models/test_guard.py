"""Inputs are left to the graph, but where a wrong rank could end the process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from serving.models.servable import Servable
from serving.protocol.errors import Code, ServingError


def saved(
    folder: Path, shape: list[int | None] | None, function: Callable[[tf.Tensor], tf.Tensor]
) -> Servable:
    """A model of one function of float32."""
    module = tf.Module()
    module.call = tf.function(
        lambda x: {"y": function(x)},
        input_signature=[tf.TensorSpec(shape, tf.float32, "x")],
        autograph=False,
    )
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.call})
    return Servable("m", 1, folder)


def conv(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.conv2d(x, tf.ones([3, 3, 3, 4]), 1, "SAME")


NETWORKS: dict[str, tuple[list[int | None], Callable[[tf.Tensor], tf.Tensor], bool]] = {
    "dense": ([None, 4], lambda x: tf.nn.relu(x @ tf.ones([4, 3])), False),
    "softmax": ([None, 4], tf.nn.softmax, False),
    "attention": ([None, 3, 4], lambda x: tf.nn.softmax(tf.einsum("bij,bkj->bik", x, x)) @ x, False),
    "normalized": ([None, 4], lambda x: x / tf.reduce_sum(x), False),
    "sorted": ([None, 4], lambda x: tf.math.top_k(x, 2).values, False),
    "convolution": ([None, 8, 8, 3], conv, True),
    "residual": ([None, 8, 8, 3], lambda x: tf.nn.relu(conv(x)) + conv(x), True),
    "depthwise": (
        [None, 8, 8, 3],
        lambda x: tf.nn.depthwise_conv2d(x, tf.ones([3, 3, 3, 1]), [1, 1, 1, 1], "SAME"),
        True,
    ),
    "sequence": ([None, 8, 3], lambda x: tf.nn.conv1d(x, tf.ones([3, 3, 4]), 1, "SAME"), True),
    "volume": (
        [None, 4, 4, 4, 2],
        lambda x: tf.nn.conv3d(x, tf.ones([3, 3, 3, 2, 4]), [1] * 5, "SAME"),
        True,
    ),
    "transposed": (
        [None, 4, 4, 3],
        lambda x: tf.nn.conv2d_transpose(x, tf.ones([3, 3, 4, 3]), [tf.shape(x)[0], 8, 8, 4], 2),
        True,
    ),
    "pooled": ([None, 8, 8, 3], lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME"), True),
    "pooled volume": ([None, 4, 4, 4, 2], lambda x: tf.nn.avg_pool3d(x, 2, 2, "SAME"), True),
    "branch": (
        [None, 8, 8, 3],
        lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: conv(x), lambda: conv(-x)),
        True,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_no_rank_and_no_type_ends_the_process(tmp_path: Path, name: str) -> None:
    shape, function, guarded = NETWORKS[name]
    servable = saved(tmp_path, shape, function)
    signature = servable.signatures["serving_default"]
    assert signature.guarded is guarded

    def ask(x: np.ndarray) -> np.ndarray:
        values = signature.checked_inputs({"x": x})
        return servable.run(signature, ("y",), [values["x"]])[0]

    good = np.ones([2 if size is None else size for size in shape], np.float32)
    expected = ask(good)
    errors = []
    for rank in range(7):
        for size in (1, 2, 8):
            try:
                ask(np.ones([size] * rank, np.float32))
            except ServingError as error:
                errors.append(error)
    # What oneDNN's kernels of these say, on processors where they are taken; TF Serving passes it on too.
    aborted = {Code.ABORTED} if name in {"softmax", "transposed"} else set()
    assert {error.code for error in errors} <= {Code.INVALID_ARGUMENT} | aborted
    assert sum("expects shape" in error.message for error in errors) == (18 if guarded else 0)
    for dtype in (np.float64, np.int32, np.uint8, np.bool_, np.complex64, np.float16, object):
        with pytest.raises(ServingError) as caught:
            ask(np.full(good.shape, b"a", object) if dtype is object else good.astype(dtype))
        assert caught.value.code is Code.INVALID_ARGUMENT
    np.testing.assert_array_equal(ask(good), expected)
    servable.retire()


def test_an_empty_batch_of_a_convolution_is_refused(tmp_path: Path) -> None:
    servable = saved(tmp_path, [None, 8, 8, 3], conv)
    signature = servable.signatures["serving_default"]
    with pytest.raises(ServingError, match="is empty"):
        signature.checked_inputs({"x": np.zeros((0, 8, 8, 3), np.float32)})
    servable.retire()
