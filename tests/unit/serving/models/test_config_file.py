"""The configuration files of TF Serving: read as it reads them, refused in one line."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.config import model_server_config_pb2 as config_pb2

from serving.models.batching_parameters import BatchingParameters, Join
from serving.models.config_file import (
    ConfigFileError,
    ModelConfig,
    Policy,
    models_of,
    read_batching,
    read_models,
)
from serving.protocol.errors import ServingError

MODEL = "config {{ name: '{}' base_path: '{}' model_platform: 'tensorflow' {} }}"


def model_list(*models: str) -> str:
    return "model_config_list { " + " ".join(models) + " }"


def test_models_policies_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(
        model_list(
            MODEL.format("a", "/models/a", ""),
            MODEL.format("b", "/models/b", "model_version_policy { latest { num_versions: 3 } }"),
            MODEL.format("c", "/models/c", "model_version_policy { all {} }"),
            MODEL.format(
                "d",
                "/models/d",
                "model_version_policy { specific { versions: 4 versions: 5 } }"
                " version_labels { key: 'stable' value: 4 } version_labels { key: 'canary' value: 5 }",
            ),
        )
        + "  # a comment"
    )
    assert read_models(path) == [
        ModelConfig("a", Path("/models/a"), Policy(1)),
        ModelConfig("b", Path("/models/b"), Policy(3)),
        ModelConfig("c", Path("/models/c"), Policy(0, every=True)),
        ModelConfig("d", Path("/models/d"), Policy(0, specific=(4, 5)), {"stable": 4, "canary": 5}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("improperly formatted { file", "Error parsing text-format tensorflow.serving.ModelServerConfig"),
        (model_list("config { nam: 'a' }"), "Error parsing text-format"),
        (
            model_list(MODEL.format("a", "/a", ""), MODEL.format("a", "/b", "")),
            "Illegal to list model a multiple times in config list",
        ),
        (model_list(MODEL.format("a", "relative", "")), "to have an absolute path"),
        (model_list("config { name: 'a' base_path: '/a' }"), "model name is a"),
        (
            model_list("config { name: 'a' base_path: '/a' model_platform: 'other' }"),
            "unsupported platform other",
        ),
    ],
)
def test_a_bad_model_config_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "models.config"
    path.write_text(text)
    with pytest.raises(ConfigFileError, match=message) as caught:
        read_models(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_old_way_to_say_tensorflow(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    text = "model_config_list {{ config {{ name: 'm' base_path: '/m' model_type: {} }} }}"
    path.write_text(text.format("TENSORFLOW"))
    assert read_models(path) == [ModelConfig("m", Path("/m"))]
    path.write_text(text.format("OTHER"))
    with pytest.raises(ConfigFileError, match="unsupported platform"):
        read_models(path)


def test_a_custom_model_config_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text("custom_model_config { type_url: 'x/y' }")
    with pytest.raises(ConfigFileError, match="custom_model_config is not supported"):
        read_models(path)


def test_batching_parameters(tmp_path: Path) -> None:
    path = tmp_path / "batching.config"
    path.write_text(
        "max_batch_size { value: 32 } batch_timeout_micros { value: 500 } max_enqueued_batches { value: 7 }"
        " num_batch_threads { value: 3 } allowed_batch_sizes: 8 allowed_batch_sizes: 32"
    )
    assert read_batching(path) == BatchingParameters(Join.ALL, 32, 500, 7, 3, (8, 32))
    path.write_text("max_batch_size { value: 32 }")
    assert read_batching(path) == BatchingParameters(Join.ALL, max_batch_size=32)
    path.write_text(
        "max_batch_size { value: 32 } pad_variable_length_inputs: true"
        " enable_large_batch_splitting { value: true } max_execution_batch_size { value: 8 }"
    )
    parameters = read_batching(path)
    assert parameters.pad_variable_length_inputs
    assert parameters.enable_large_batch_splitting
    assert parameters.part_size == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size: 32", "Error parsing text-format tensorflow.serving.BatchingParameters"),
        ("max_batch_size { value: 0 }", "max_batch_size must be positive, but is 0"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: 4", "allowed_batch_sizes must increase"),
        (
            "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 2000 }",
            "max_execution_batch_size must be",
        ),
    ],
)
def test_bad_batching_parameters_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "batching.config"
    path.write_text(text)
    with pytest.raises(ConfigFileError, match=message):
        read_batching(path)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.config"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(ConfigFileError):
        assert all(isinstance(config, ModelConfig) for config in read_models(path))


NAMES = st.text("abc/. ", max_size=4)


@given(st.lists(st.tuples(NAMES, NAMES, st.sampled_from(["tensorflow", "", "other"])), max_size=3))
def test_any_message_makes_models_or_is_refused(models: list[tuple[str, str, str]]) -> None:
    message = config_pb2.ModelServerConfig()
    for name, base_path, platform in models:
        message.model_config_list.config.add(name=name, base_path=base_path, model_platform=platform)
    copy = text_format.Parse(text_format.MessageToString(message), config_pb2.ModelServerConfig())
    with suppress(ServingError):
        assert [config.name for config in models_of(copy)] == [name for name, _, _ in models]
