"""Requests and the answers that TF Serving gives: against our server, or a real one (see
conftest.endpoint).

Messages are TF Serving's own, in the parts that clients match on.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
    session_service_pb2,
)

from tests.integration.serving.conftest import CALL_S, Endpoint
from tests.unit.serving.half_plus_two import NAME

MODEL = f"/v1/models/{NAME}"
PREDICT = f"{MODEL}:predict"
CLASSIFY = f"{MODEL}:classify"
REGRESS = f"{MODEL}:regress"
LOAD_CLIENTS = 8
LOAD_REQUESTS = 150  # of each
TEXT = [b"abc", bytes(range(256))]
B64 = [{"b64": base64.b64encode(text).decode()} for text in TEXT]


@dataclass(frozen=True)
class Case:
    """A REST request and its answer: JSON, or a pattern that the error's message must contain."""

    what: str
    path: str
    body: Any
    status: int
    answer: Any
    method: str = "POST"
    only_ours: bool = False  # a deliberate deviation, listed in docs/serving.md


def signature(name: str, **rest: Any) -> dict[str, Any]:
    """A request's body for a signature that is not the default one."""
    return {"signature_name": name, **rest}


STATUS_OK = {"error_code": "OK", "error_message": ""}
BOTH_VERSIONS = [{"version": number, "state": "AVAILABLE", "status": STATUS_OK} for number in ("2", "1")]

REST = [
    # Predict, row by row.
    Case("newest version", PREDICT, {"instances": [2.0, 3.0]}, 200, {"predictions": [4.0, 4.5]}),
    Case("integers for floats", PREDICT, {"instances": [2, 3]}, 200, {"predictions": [4.0, 4.5]}),
    Case("a version", f"{MODEL}/versions/1:predict", {"instances": [2.0]}, 200, {"predictions": [3.0]}),
    Case("a label", f"{MODEL}/labels/stable:predict", {"instances": [2.0]}, 200, {"predictions": [3.0]}),
    Case(
        "other label", f"{MODEL}/labels/canary:predict", {"instances": [2.0]}, 200, {"predictions": [4.0]}
    ),
    Case("path in capitals", f"/V1/Models/{NAME}:predict", {"instances": [2]}, 200, {"predictions": [4.0]}),
    Case(
        "named instances", PREDICT, {"instances": [{"x": 2.0}, {"x": 4}]}, 200, {"predictions": [4.0, 5.0]}
    ),
    Case(
        "named default signature",
        PREDICT,
        signature("serving_default", instances=[2.0]),
        200,
        {"predictions": [4.0]},
    ),
    Case(
        "two inputs and outputs",
        PREDICT,
        signature("pair", instances=[{"a": 3.0, "b": 1.0}, {"a": 0.5, "b": 2.0}]),
        200,
        {"predictions": [{"sum": 4.0, "difference": 2.0}, {"sum": 2.5, "difference": -1.5}]},
    ),
    Case(
        "a grid",
        PREDICT,
        signature("grid", instances=[[[1, 2, 3], [4, 5, 6]]]),
        200,
        {"predictions": [[[1, 4], [2, 5], [3, 6]]]},
    ),
    Case(
        "booleans", PREDICT, signature("flag", instances=[True, False]), 200, {"predictions": [False, True]}
    ),
    Case(
        "integers stay exact",
        PREDICT,
        signature("integers", instances=[2**62 + 1]),
        200,
        {"predictions": [{"n": 2**62 + 1, "as_uint8": 1, "as_double": (2**62 + 1) / 3}]},
    ),
    Case(
        "text and bytes",
        PREDICT,
        signature("text", instances=["abc", "é"]),
        200,
        {
            "predictions": [
                {"upper": "ABC", "reversed_bytes": {"b64": "YWJj"}},
                {"upper": "É", "reversed_bytes": {"b64": "w6k="}},
            ]
        },
    ),
    Case("base64", PREDICT, signature("text", instances=B64[:1]), 200, re.compile("YWJj")),
    # Predict, column by column.
    Case("columns", PREDICT, {"inputs": [2.0, 3.0]}, 200, {"outputs": [4.0, 4.5]}),
    Case("named column", PREDICT, {"inputs": {"x": [2.0]}}, 200, {"outputs": [4.0]}),
    Case(
        "two columns",
        PREDICT,
        signature("pair", inputs={"a": [3.0], "b": [1.0]}),
        200,
        {"outputs": {"sum": [4.0], "difference": [2.0]}},
    ),
    Case("no batch", PREDICT, signature("total", inputs=[1.0, 2.0, 3.0]), 200, {"outputs": 6.0}),
    Case("any rank", PREDICT, signature("any_rank", inputs=[[1.0, 2.0]]), 200, {"outputs": [1, 2]}),
    Case("rank zero", PREDICT, signature("any_rank", inputs=5.0), 200, {"outputs": []}),
    # What JSON may contain.
    Case("surplus bytes", PREDICT, b'{"instances": [2.0]} and more', 200, {"predictions": [4.0]}),
    Case("surplus keys", PREDICT, {"instances": [2.0], "comment": {"a": 1}}, 200, {"predictions": [4.0]}),
    Case("infinity in", PREDICT, b'{"instances": [Infinity]}', 200, {"predictions": [math.inf]}),
    Case("infinity out", PREDICT, signature("inverse", instances=[0.0]), 200, {"predictions": [math.inf]}),
    Case("negative infinity", PREDICT, b'{"instances": [-Infinity]}', 200, {"predictions": [-math.inf]}),
    # Predict, refused.
    Case("empty body", PREDICT, b"", 400, "JSON Parse error: The document is empty"),
    Case("no JSON", PREDICT, b"{]", 400, "JSON Parse error: Missing a name for object member"),
    Case("no value", PREDICT, b'{"instances": x}', 400, "JSON Parse error: Invalid value"),
    Case("no object", PREDICT, [1, 2], 400, "JSON Value: .* Is not object"),
    Case("neither key", PREDICT, {"values": [1]}, 400, "^Missing 'inputs' or 'instances' key$"),
    Case("both keys", PREDICT, {"instances": [1], "inputs": [1]}, 400, "expecting only one of"),
    Case("no list", PREDICT, {"instances": 1.0}, 400, "Expecting 'instances' to be an list/array"),
    Case("empty list", PREDICT, {"instances": []}, 400, "No values in 'instances' array"),
    Case(
        "signature no text", PREDICT, {"signature_name": 1, "instances": [1]}, 400, "must be a string value"
    ),
    Case(
        "unknown signature",
        PREDICT,
        signature("nope", instances=[1]),
        400,
        '^Serving signature name: "nope" not found in signature def$',
    ),
    Case(
        "text for a number",
        PREDICT,
        {"instances": ["two"]},
        400,
        'JSON Value: "two" Type: String is not of expected type: float',
    ),
    Case("null", PREDICT, {"instances": [None]}, 400, "Type: Null is not of expected type: float"),
    Case(
        "boolean for a number", PREDICT, {"instances": [1.0, True]}, 400, "is not of expected type: float"
    ),
    Case("fraction for an integer", PREDICT, signature("integers", instances=[1.5]), 400, "type: int64"),
    Case(
        "number for text", PREDICT, signature("text", instances=[1]), 400, "is not of expected type: string"
    ),
    Case(
        "bad base64", PREDICT, signature("text", instances=[{"b64": "*"}]), 400, "Unable to base64 decode"
    ),
    Case(
        "uneven lists",
        PREDICT,
        signature("grid", instances=[[[1, 2, 3], [4, 5]]]),
        400,
        "Encountered list at unexpected size: 2 at level: 1 expected size: 3",
    ),
    Case(
        "instances of different size",
        PREDICT,
        signature("any_rank", instances=[[1.0], [1.0, 2.0]]),
        400,
        "Failed to process element: 1 .*Expecting tensor size: 1 but got: 2",
    ),
    Case(
        "unknown name",
        PREDICT,
        {"instances": [{"z": 1.0}]},
        400,
        "Failed to process element: 0 key: z .*does not have named input: z",
    ),
    Case(
        "a name missing",
        PREDICT,
        signature("pair", instances=[{"a": 1.0}]),
        400,
        "Failed to process element: 0 .*keys must be equal to: a,b",
    ),
    Case("a list for two", PREDICT, signature("pair", instances=[1.0]), 400, "instances is a plain list"),
    Case("a column for two", PREDICT, signature("pair", inputs=[1.0]), 400, "inputs is a plain value/list"),
    Case(
        "a column missing",
        PREDICT,
        signature("pair", inputs={"a": [1.0]}),
        400,
        "^Missing named input: b in 'inputs' object",
    ),
    Case(
        "object among lists",
        PREDICT,
        {"instances": [1.0, {"x": 1.0}]},
        400,
        "Expecting value/list but got object at item 1 of input list",
    ),
    Case(
        "list among objects",
        PREDICT,
        {"instances": [{"x": 1.0}, 1.0]},
        400,
        "Expecting object but got list at item 1 of input list",
    ),
    Case("another rank", PREDICT, {"inputs": [[2.0]]}, 200, {"outputs": [[4.0]]}),
    Case(
        "another size",
        PREDICT,
        signature("grid", instances=[[[1]]]),
        200,
        {"predictions": [[[1]]]},
    ),
    Case("empty batch", PREDICT, {"inputs": []}, 200, {"outputs": []}),
    # Shapes, types and sizes are the graph's business.
    Case(
        "shape of the README",
        PREDICT,
        signature("column", instances=[1.0, 2.0]),
        200,
        {"predictions": [3.5, 4.0]},
    ),
    Case(
        "no shape", PREDICT, signature("any_rank", instances=[[1.0], [2.0]]), 200, {"predictions": [2, 1]}
    ),
    Case(
        "unequal inputs",
        PREDICT,
        signature("unequal", inputs={"a": [1.0, 2.0], "b": [3.0]}),
        200,
        {"outputs": [[3.0], [6.0]]},
    ),
    Case("one string", PREDICT, signature("joined", inputs=["a", "b"]), 200, {"outputs": "ab"}),
    Case(
        "no inputs",
        PREDICT,
        signature("constants", inputs={}),
        400,
        "Failed to get input map for signature: constants",
    ),
    Case("too big", PREDICT, b'{"instances": [1e400]}', 400, "Number too big to be stored in double."),
    Case(
        "too big in an example",
        f"{MODEL}:regress",
        b'{"signature_name": "regress_x_to_y", "examples": [{"x": 1e400}]}',
        400,
        "Number too big to be stored in double.",
    ),
    Case(
        "examples for numbers",
        f"{MODEL}:regress",
        signature("regress_numbers", examples=[{"x": 1.0}]),
        400,
        re.compile("string|float"),
    ),
    # Who is asked.
    Case(
        "unknown model", "/v1/models/foo:predict", {"instances": [1]}, 404, r"for request: Latest\(foo\)$"
    ),
    Case(
        "unknown version",
        f"{MODEL}/versions/50:predict",
        {"instances": [1]},
        404,
        rf"^Servable not found for request: Specific\({NAME}, 50\)$",
    ),
    Case(
        "unknown label",
        f"{MODEL}/labels/nope:predict",
        {"instances": [1]},
        400,
        "^Unrecognized servable version label: nope$",
    ),
    Case("huge version", f"{MODEL}/versions/{10**30}:predict", {"instances": [1]}, 400, "to numeric"),
    Case("unknown verb", f"{MODEL}:explain", {}, 400, f"^Malformed request: POST {MODEL}:explain$"),
    Case("wrong verb", PREDICT, None, 400, f"^Malformed request: GET {PREDICT}$", "GET"),
    Case("post to status", MODEL, {}, 400, f"^Malformed request: POST {MODEL}$"),
    Case("put", PREDICT, {}, 400, f"^Malformed request: PUT {PREDICT}$", "PUT"),
    Case("nonsense", "/v1/nonsense", None, 400, "^Malformed request: GET /v1/nonsense$", "GET"),
    # Status and metadata.
    Case("status", MODEL, None, 200, {"model_version_status": BOTH_VERSIONS}, "GET"),
    Case(
        "status of a version",
        f"{MODEL}/versions/1",
        None,
        200,
        {"model_version_status": BOTH_VERSIONS[1:]},
        "GET",
    ),
    # A label tells TF Serving's status nothing.
    Case(
        "status of a label",
        f"{MODEL}/labels/stable",
        None,
        200,
        {"model_version_status": BOTH_VERSIONS},
        "GET",
    ),
    Case(
        "status of an unknown model",
        "/v1/models/foo",
        None,
        404,
        "^Could not find any versions of model foo$",
        "GET",
    ),
    Case(
        "status of an unknown version",
        f"{MODEL}/versions/99",
        None,
        404,
        f"^Could not find version 99 of model {NAME}$",
        "GET",
    ),
    Case("status of no model", "/v1/models", None, 400, "^Missing model name in request.$", "GET"),
    Case("metadata of an unknown model", "/v1/models/foo/metadata", None, 404, r"Latest\(foo\)$", "GET"),
    # Classify and Regress.
    Case(
        "classify",
        CLASSIFY,
        signature("classify_x_to_y", examples=[{"x": 2.0}]),
        200,
        {"results": [[["", 4.0]]]},
    ),
    Case(
        "classify with names",
        CLASSIFY,
        signature("classify_named", examples=[{"x": 2.0}, {"x": [4.0]}]),
        200,
        {"results": [[["y", 4.0], ["2y", 8.0]], [["y", 5.0], ["2y", 10.0]]]},
    ),
    Case("regress", REGRESS, signature("regress_x_to_y", examples=[{"x": 2.0}]), 200, {"results": [4.0]}),
    Case(
        "context",
        REGRESS,
        signature("regress_x_to_y", context={"x": 2.0}, examples=[{}, {"x": 8.0}]),
        200,
        {"results": [4.0, 7.0]},
    ),
    Case(
        "regress an older version",
        f"{MODEL}/versions/1:regress",
        signature("regress_x_to_y", examples=[{"x": 2.0}]),
        200,
        {"results": [3.0]},
    ),
    Case("no examples", CLASSIFY, signature("classify_x_to_y"), 400, "key 'examples' is expected"),
    Case(
        "examples no list", CLASSIFY, signature("classify_x_to_y", examples={}), 400, "to be an list/array"
    ),
    Case(
        "empty examples", REGRESS, signature("regress_x_to_y", examples=[]), 400, "value is an empty array"
    ),
    Case(
        "example no object", REGRESS, signature("regress_x_to_y", examples=[1]), 400, "must be JSON object"
    ),
    Case(
        "null in an example",
        REGRESS,
        signature("regress_x_to_y", examples=[{"x": None}]),
        400,
        "Feature: x has element with unexpected JSON type: Null",
    ),
    Case(
        "mixed feature",
        REGRESS,
        signature("regress_x_to_y", examples=[{"x": [1.0, "a"]}]),
        400,
        "Unexpected element type in feature: x expecting type: float",
    ),
    Case(
        "feature of another type",
        REGRESS,
        signature("regress_x_to_y", examples=[{"x": "a"}]),
        400,
        "Data types don't match",
    ),
    Case(
        "not for classify", CLASSIFY, signature("pair", examples=[{"x": 1.0}]), 400, "^Expected one input"
    ),
    Case("not for regress", REGRESS, {"examples": [{"x": 1.0}]}, 400, "No regression inputs found"),
    Case(
        "classify without a signature",
        CLASSIFY,
        signature("nope", examples=[{"x": 1.0}]),
        400,
        "^No signature was found with the name: nope$",
    ),
]


@pytest.mark.parametrize("case", REST, ids=lambda case: case.what)
def test_rest(endpoint: Endpoint, case: Case) -> None:
    if case.only_ours and not endpoint.is_ours:
        pytest.skip("a deliberate deviation")
    status, answer = endpoint.rest(case.method, case.path, case.body)
    assert status == case.status, answer
    if isinstance(case.answer, str):
        assert re.search(case.answer, answer["error"], re.DOTALL), answer
    elif isinstance(case.answer, re.Pattern):
        assert case.answer.search(json.dumps(answer))
    else:
        assert answer == case.answer


def test_nan_comes_back_as_nan(endpoint: Endpoint) -> None:
    status, answer = endpoint.rest("POST", PREDICT, b'{"instances": [NaN, 2.0]}')
    assert status == 200
    assert math.isnan(answer["predictions"][0])
    assert answer["predictions"][1] == 4.0


def test_floats_have_the_digits_of_a_float(endpoint: Endpoint) -> None:
    status, answer = endpoint.rest("POST", PREDICT, {"instances": [0.4]})
    assert (status, answer) == (200, {"predictions": [3.2]})


def test_a_gzip_body_is_unpacked(endpoint: Endpoint) -> None:
    body = gzip.compress(json.dumps({"instances": [2.0]}).encode())
    answer = endpoint.rest("POST", PREDICT, body, {"Content-Encoding": "gzip"})
    assert answer == (200, {"predictions": [4.0]})


def test_a_large_request(endpoint: Endpoint) -> None:
    values = np.arange(1000, dtype=np.float32)
    status, answer = endpoint.rest("POST", PREDICT, {"instances": values.tolist()})
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], values / 2 + 3)


def test_rest_metadata_has_protobufs_json(endpoint: Endpoint) -> None:
    status, answer = endpoint.rest("GET", f"{MODEL}/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": NAME, "signature_name": "", "version": "2"}
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    x = signatures["serving_default"]["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert x["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"
    assert {"classify_x_to_y", "regress_x_to_y"} <= signatures.keys()


def test_metrics_under_tf_servings_names(endpoint: Endpoint) -> None:
    endpoint.rest("POST", PREDICT, {"instances": [2.0]})
    status, page = endpoint.rest("GET", "/monitoring/prometheus/metrics")
    assert status == 200
    assert re.search(
        rf'^:tensorflow:serving:request_count{{model_name="{NAME}",.*status="OK".*}} [1-9]',
        page,
        re.MULTILINE,
    )
    assert ":tensorflow:serving:request_latency_bucket{" in page


# gRPC.


@pytest.fixture
def predictions(channel: grpc.Channel) -> prediction_service_pb2_grpc.PredictionServiceStub:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def models(channel: grpc.Channel) -> model_service_pb2_grpc.ModelServiceStub:
    return model_service_pb2_grpc.ModelServiceStub(channel)


def predict_request(
    signature_name: str = "", name: str = NAME, **inputs: np.ndarray
) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature_name
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    return request


def example_input(request: Any, *values: float) -> Any:
    for value in values:
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(value)
    return request


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


X = np.array([2.0, 3.0], np.float32)


def test_grpc_predict_answers_in_typed_fields(predictions: Any) -> None:
    response = predictions.Predict(predict_request(x=X), CALL_S)
    assert list(response.outputs) == ["y"]
    y = response.outputs["y"]
    assert list(y.float_val) == [4.0, 4.5]
    assert y.tensor_content == b""
    assert [dim.size for dim in y.tensor_shape.dim] == [2]
    assert response.model_spec.version.value == 2
    assert response.model_spec.signature_name == "serving_default"


@pytest.mark.parametrize(
    ("proto", "expected"),
    [
        ("dtype: DT_FLOAT tensor_shape { dim { size: 2 } } float_val: 2 float_val: 3", [4.0, 4.5]),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 3 } } float_val: 2", [4.0, 4.0, 4.0]),
        ("dtype: DT_FLOAT tensor_shape { dim { size: 2 } }", [3.0, 3.0]),
        (r"dtype: DT_FLOAT tensor_shape { dim { size: 1 } } tensor_content: '\000\000\000@'", [4.0]),
    ],
)
def test_grpc_reads_each_form_of_a_tensor(predictions: Any, proto: str, expected: list[float]) -> None:
    request = predict_request()
    text_format.Parse(proto, request.inputs["x"])
    assert list(predictions.Predict(request, CALL_S).outputs["y"].float_val) == expected


def test_grpc_predict_of_a_version_and_a_label(predictions: Any) -> None:
    request = predict_request(x=X)
    request.model_spec.version.value = 1
    assert list(predictions.Predict(request, CALL_S).outputs["y"].float_val) == [3.0, 3.5]
    request.model_spec.version_label = "stable"
    response = predictions.Predict(request, CALL_S)
    assert list(response.outputs["y"].float_val) == [3.0, 3.5]
    assert response.model_spec.version.value == 1


def test_grpc_types(predictions: Any) -> None:
    response = predictions.Predict(predict_request("integers", n=np.array([300, -1])), CALL_S)
    assert list(response.outputs["n"].int64_val) == [300, -1]
    assert list(response.outputs["as_uint8"].int_val) == [44, 255]
    assert list(response.outputs["as_double"].double_val) == [100.0, -1 / 3]
    response = predictions.Predict(predict_request("text", text=np.array(TEXT, object)), CALL_S)
    assert list(response.outputs["reversed_bytes"].string_val) == TEXT
    response = predictions.Predict(predict_request("flag", flag=np.array([True, False])), CALL_S)
    assert list(response.outputs["negated"].bool_val) == [False, True]


def test_grpc_output_filter(predictions: Any) -> None:
    request = predict_request("pair", a=X, b=X)
    request.output_filter.append("sum")
    assert list(predictions.Predict(request, CALL_S).outputs) == ["sum"]
    request.output_filter.append("sum")
    code, message = refused(lambda: predictions.Predict(request, CALL_S))
    assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, "duplicate output tensor alias: sum")
    del request.output_filter[:]
    request.output_filter.append("nope")
    code, message = refused(lambda: predictions.Predict(request, CALL_S))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("output tensor alias not found in signature: nope")


def test_grpc_predict_without_a_model_spec(predictions: Any) -> None:
    answer = refused(lambda: predictions.Predict(predict_pb2.PredictRequest(), CALL_S))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (predict_request(name="", x=X), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (predict_request(name="foo", x=X), "NOT_FOUND", "Servable not found for request: Latest(foo)"),
        (predict_request("nope", x=X), "FAILED_PRECONDITION", 'Serving signature key "nope" not found.'),
        (
            predict_request(x=X, z=X),
            "INVALID_ARGUMENT",
            "input size does not match signature: 2!=1 len({x,z}) != len({x})."
            " Sent extra: {z}. Missing but required: {}.",
        ),
        (
            predict_request("pair", a=X),
            "INVALID_ARGUMENT",
            "input size does not match signature: 1!=2 len({a}) != len({a,b})."
            " Sent extra: {}. Missing but required: {b}.",
        ),
    ],
    ids=["no name", "unknown model", "unknown signature", "surplus input", "missing input"],
)
def test_grpc_predict_refused(predictions: Any, request_: Any, code: str, message: str) -> None:
    assert refused(lambda: predictions.Predict(request_, CALL_S)) == (grpc.StatusCode[code], message)


@pytest.mark.parametrize(
    "request_",
    [
        predict_request(z=X),
        predict_request(x=X.astype(np.float64)),
        predict_request(x=np.array(["a"], object)),
        predict_request("pair", a=X, b=np.zeros(3, np.float32)),
    ],
    ids=["unknown input", "another type", "text", "uneven batch"],
)
def test_grpc_predict_of_inputs_that_do_not_fit(predictions: Any, request_: Any) -> None:
    assert refused(lambda: predictions.Predict(request_, CALL_S))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_grpc_unknown_version_and_label(predictions: Any) -> None:
    request = predict_request(x=X)
    request.model_spec.version.value = 50
    answer = refused(lambda: predictions.Predict(request, CALL_S))
    assert answer == (grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Specific({NAME}, 50)")
    request.model_spec.version_label = "nope"
    answer = refused(lambda: predictions.Predict(request, CALL_S))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label: nope")


def test_grpc_takes_and_gives_more_than_four_megabytes(endpoint: Endpoint) -> None:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    text = [b"a" * 6000] * 1000
    with grpc.insecure_channel(f"{endpoint.host}:{endpoint.grpc_port}", options) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        response = stub.Predict(predict_request("text", text=np.array(text, object)), CALL_S)
    assert list(response.outputs["reversed_bytes"].string_val) == text


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_rows_that_depend_on_each_other_stay_right_under_load(endpoint: Endpoint, transport: str) -> None:
    """x / sum(x): a request that is joined with another one gets another answer."""

    def ask(_: int) -> list[list[float]]:
        if transport == "rest":
            body = signature("share", instances=[1.0, 3.0])
            return [endpoint.rest("POST", PREDICT, body)[1]["predictions"] for _ in range(LOAD_REQUESTS)]
        with endpoint.channel() as own:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(own)
            request = predict_request("share", x=np.array([1.0, 3.0], np.float32))
            return [
                list(stub.Predict(request, CALL_S).outputs["y"].float_val) for _ in range(LOAD_REQUESTS)
            ]

    with ThreadPoolExecutor(LOAD_CLIENTS) as threads:
        answers = [answer for own in threads.map(ask, range(LOAD_CLIENTS)) for answer in own]
    assert len(answers) == LOAD_CLIENTS * LOAD_REQUESTS
    assert [answer for answer in answers if answer != [0.25, 0.75]] == []


def test_grpc_classify_and_regress(predictions: Any) -> None:
    classify = example_input(classification_pb2.ClassificationRequest(), 2.0, 4.0)
    classify.model_spec.name, classify.model_spec.signature_name = NAME, "classify_named"
    answer = predictions.Classify(classify, CALL_S)
    rows = [[(each.label, each.score) for each in row.classes] for row in answer.result.classifications]
    assert rows == [[("y", 4.0), ("2y", 8.0)], [("y", 5.0), ("2y", 10.0)]]
    assert (answer.model_spec.version.value, answer.model_spec.signature_name) == (2, "classify_named")

    regress = example_input(regression_pb2.RegressionRequest(), 2.0, 4.0)
    regress.model_spec.name, regress.model_spec.signature_name = NAME, "regress_x_to_y"
    answer = predictions.Regress(regress, CALL_S)
    assert [each.value for each in answer.result.regressions] == [4.0, 5.0]


def test_grpc_context_is_merged_into_examples(predictions: Any) -> None:
    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = NAME, "regress_x_to_y"
    given = request.input.example_list_with_context
    given.context.features.feature["x"].float_list.value.append(8.0)
    given.examples.add()
    answer = predictions.Regress(request, CALL_S)
    assert [each.value for each in answer.result.regressions] == [7.0]


def test_grpc_classify_refused(predictions: Any) -> None:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = NAME, "classify_x_to_y"
    answer = refused(lambda: predictions.Classify(request, CALL_S))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "Input is empty.")
    request.model_spec.signature_name = "nope"
    answer = refused(lambda: predictions.Classify(request, CALL_S))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "No signature was found with the name: nope")


def multi_request(*tasks: tuple[str, str]) -> inference_pb2.MultiInferenceRequest:
    request = inference_pb2.MultiInferenceRequest()
    for signature_name, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = NAME, signature_name
    return example_input(request, 2.0)


def test_grpc_multi_inference(predictions: Any) -> None:
    request = multi_request(("regress_x_to_y", "regress"), ("classify_x_to_y", "classify"))
    first, second = predictions.MultiInference(request, CALL_S).results
    assert first.regression_result.regressions[0].value == 4.0
    assert second.classification_result.classifications[0].classes[0].score == 4.0
    assert [each.model_spec.signature_name for each in (first, second)] == [
        "regress_x_to_y",
        "classify_x_to_y",
    ]
    assert first.model_spec.version.value == 2


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (
            multi_request(("regress_x_to_y", "regress"), ("regress_x_to_y", "regress")),
            "INVALID_ARGUMENT",
            "Duplicate evaluation of signature: regress_x_to_y",
        ),
        (
            multi_request(("serving_default", "predict")),
            "UNIMPLEMENTED",
            "Unsupported signature method_name: tensorflow/serving/predict",
        ),
        (
            multi_request(("nope", "regress")),
            "INVALID_ARGUMENT",
            "Requested signature not found in model graph: nope",
        ),
        (inference_pb2.MultiInferenceRequest(), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ],
    ids=["twice", "predict", "unknown signature", "no task"],
)
def test_grpc_multi_inference_refused(predictions: Any, request_: Any, code: str, message: str) -> None:
    assert refused(lambda: predictions.MultiInference(request_, CALL_S)) == (grpc.StatusCode[code], message)


def test_grpc_metadata(predictions: Any) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = NAME
    response = predictions.GetModelMetadata(request, CALL_S)
    assert (response.model_spec.name, response.model_spec.version.value) == (NAME, 2)
    definitions = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(definitions)
    assert definitions.signature_def["serving_default"].inputs["x"].dtype == tf.float32.as_datatype_enum


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "GetModelMetadataRequest must specify at least one metadata_field"),
        (["nope"], "Metadata field nope is not supported"),
    ],
)
def test_grpc_metadata_refused(predictions: Any, fields: list[str], message: str) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = NAME
    answer = refused(lambda: predictions.GetModelMetadata(request, CALL_S))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_grpc_status(models: Any) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = NAME
    lines = models.GetModelStatus(request, CALL_S).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(line.version, line.state, line.status.error_code) for line in lines] == [
        (2, available, 0),
        (1, available, 0),
    ]
    request.model_spec.version.value = 1
    assert [line.version for line in models.GetModelStatus(request, CALL_S).model_version_status] == [1]


def test_grpc_status_refused(models: Any) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    answer = refused(lambda: models.GetModelStatus(request, CALL_S))
    assert answer == (grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
    request.model_spec.name = "foo"
    answer = refused(lambda: models.GetModelStatus(request, CALL_S))
    assert answer == (grpc.StatusCode.NOT_FOUND, "Could not find any versions of model foo")
    request.model_spec.name = NAME
    request.model_spec.version.value = 99
    answer = refused(lambda: models.GetModelStatus(request, CALL_S))
    assert answer == (grpc.StatusCode.NOT_FOUND, f"Could not find version 99 of model {NAME}")


def test_grpc_reload_without_a_list(models: Any) -> None:
    request = model_management_pb2.ReloadConfigRequest()
    code, message = refused(lambda: models.HandleReloadConfigRequest(request, CALL_S))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("ServerModelConfig type not supported by HandleReloadConfigRequest.")


def test_grpc_health(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    assert (
        stub.Check(health_pb2.HealthCheckRequest(), CALL_S).status == health_pb2.HealthCheckResponse.SERVING
    )


def test_grpc_session_service_is_not_there(channel: grpc.Channel) -> None:
    """TF Serving has the protocol's file, and registers no such service."""
    call = channel.unary_unary(
        "/tensorflow.serving.SessionService/SessionRun",
        session_service_pb2.SessionRunRequest.SerializeToString,
        session_service_pb2.SessionRunResponse.FromString,
    )
    code, _ = refused(lambda: call(session_service_pb2.SessionRunRequest(), CALL_S))
    assert code is grpc.StatusCode.UNIMPLEMENTED
