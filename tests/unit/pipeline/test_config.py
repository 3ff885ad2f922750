"""PipelineConfig: typed, validated, unknown keys refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.beam_config import LOCAL_BEAM_ARGS, BeamNodes
from pipeline.config import ConfigError, PipelineConfig, keys, with_settings
from trainer.recipes import resolve


def test_settings_are_converted_to_their_fields_types() -> None:
    config = with_settings(
        PipelineConfig(),
        [
            "gates.accuracy=0.5",
            "cache=false",
            "data.shards=3",
            "trainer.learning_rate=1e-3",
            "root=/some/where",
            "beam.args=--a=1,--b",
        ],
    )
    assert config.gates.accuracy == 0.5
    assert config.cache is False
    assert config.data.shards == 3
    assert config.trainer.overrides() == {"learning_rate": 1e-3}
    assert config.root == Path("/some/where")
    assert config.beam.args == ("--a=1", "--b")


def test_later_settings_win_and_earlier_ones_of_the_section_stay() -> None:
    config = with_settings(PipelineConfig(), ["gates.accuracy=0.5", "gates.class_accuracy=0.4"])
    config = with_settings(config, ["gates.accuracy=0.6"])
    assert (config.gates.accuracy, config.gates.class_accuracy) == (0.6, 0.4)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("gates.acuracy=0.5", "did you mean gates.accuracy"),
        ("gates=0.5", "unknown setting 'gates'; there are gates.accuracy, gates.class_accuracy, "),
        (
            "nothing.like.it=1",
            "unknown setting 'nothing.like.it'; there are name, root, cache, overlap, data.…, ",
        ),
        ("gates.accuracy", "not of the form key=value"),
        ("gates.accuracy=high", "gates.accuracy: "),
        ("gates.accuracy=1.5", "gates.accuracy: "),
        ("data.shards=0", "data.shards: "),
        ("cache=perhaps", "cache: "),
        ("trainer.precision=half", "trainer.precision: "),
        ("trainer.workers=0", "trainer.workers: "),
        ("name=No Spaces", "name: "),
        ("beam.flink=1", "unknown setting 'beam.flink'"),
        ("beam.runner=storm", "beam.runner: "),
        ("beam.flink.parallelism=0", "beam.flink.parallelism: "),
        ("beam.nodes.Tansform.runner=flink", "did you mean beam.nodes.Transform.runner"),
        ("beam.nodes.Transform.runner=dataflow", "dataflow needs beam.dataflow.project, "),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_settings(PipelineConfig(), [setting])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_is_frozen_and_replace_validates() -> None:
    config = PipelineConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.cache = False
    assert config.replace("data", shards=12).data.shards == 12
    with pytest.raises(ConfigError, match=r"data\.shards"):
        config.replace("data", shards=0)


def test_every_key_can_be_set_to_what_it_already_is() -> None:
    config = PipelineConfig()
    for key in keys():
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        if value is None:
            continue
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert with_settings(config, [f"{key}={text}"]) == config, key


def test_everything_written_lands_below_the_root() -> None:
    config = with_settings(PipelineConfig(), ["root=/r", "push.model_name=digits"])
    for path in (config.pipeline_root, config.serving_dir, config.metadata_path, config.logs_dir):
        assert path.is_relative_to("/r")
    assert config.serving_dir.name == "digits"


def test_any_field_of_the_recipe_can_be_set_and_reaches_the_trainer() -> None:
    config = with_settings(
        PipelineConfig(),
        ["trainer.epochs=1.5", "trainer.keep=best", "trainer.gpus=2", "trainer.model_fn=my.model_fn"],
    )
    assert config.trainer.overrides() == {"epochs": 1.5, "keep": "best"}
    assert config.trainer.custom_config() == {
        "recipe": "fast",
        "overrides": {"epochs": 1.5, "keep": "best"},
        "gpus": 2,
        "model_fn": "my.model_fn",
    }


def test_beam_runs_here_unless_it_is_told_otherwise() -> None:
    config = PipelineConfig()
    for node in BeamNodes.model_fields:
        assert config.beam.flags(node) == list(LOCAL_BEAM_ARGS)


def test_each_node_runs_on_its_own_engine_and_nothing_of_another_reaches_it() -> None:
    config = with_settings(
        PipelineConfig(),
        [
            "beam.runner=flink",
            "beam.args=--everywhere",
            "beam.flink.master=flink:8081",
            "beam.flink.parallelism=8",
            "beam.flink.environment=EXTERNAL",
            "beam.flink.worker_pool=pool:50000",
            "beam.nodes.Transform.runner=local",
            "beam.nodes.Evaluator.runner=spark",
            "beam.nodes.Evaluator.args=--job_name=judge",
            "beam.spark.job_endpoint=spark:8099",
        ],
    )
    flink = config.beam.flags("StatisticsGen")
    assert flink == config.beam.flags("ImageExampleGen")
    assert {
        "--runner=FlinkRunner",
        "--flink_master=flink:8081",
        "--parallelism=8",
        "--environment_type=EXTERNAL",
        "--environment_config=pool:50000",
    } <= set(flink)
    assert config.beam.flags("Transform") == [*LOCAL_BEAM_ARGS, "--everywhere"]
    spark = config.beam.flags("Evaluator")
    assert spark[-2:] == ["--everywhere", "--job_name=judge"]
    assert {"--runner=SparkRunner", "--job_endpoint=spark:8099", "--environment_type=LOOPBACK"} <= set(
        spark
    )
    assert not any("flink" in flag for flag in spark)


def test_dataflow_has_what_it_needs() -> None:
    settings = ("project=p", "region=r", "temp_location=gs://b/tmp", "image=i", "max_workers=9")
    config = with_settings(
        PipelineConfig(),
        [*(f"beam.dataflow.{setting}" for setting in settings), "beam.nodes.Evaluator.runner=dataflow"],
    )
    assert config.beam.flags("Evaluator") == [
        "--runner=DataflowRunner",
        "--project=p",
        "--region=r",
        "--temp_location=gs://b/tmp",
        "--sdk_container_image=i",
        "--max_num_workers=9",
        "--sdk_location=container",
    ]
    assert config.beam.flags("StatisticsGen") == list(LOCAL_BEAM_ARGS)


def test_names_of_the_users_own_are_set_like_any_other() -> None:
    settings = [
        "trainer.params.margin=0.5",
        "trainer.params.name=cosine",
        "trainer.optimizer_arguments.nesterov=false",
        "trainer.run_config.save_checkpoints_secs=5",
    ]
    trainer = with_settings(PipelineConfig(), settings).trainer
    assert trainer.overrides() == {
        "params": {"margin": 0.5, "name": "cosine"},
        "optimizer_arguments": {"nesterov": False},
    }
    assert trainer.custom_config()["run_config"] == {"save_checkpoints_secs": 5.0}
    params = resolve("fast", **trainer.overrides())
    assert (params["margin"], params["learning_rate"], params["name"]) == (0.5, 0.01, "cosine")
    assert "margin" in params
    with pytest.raises(ConfigError, match=r"unknown setting 'trainer\.run_config\.margin'"):
        with_settings(PipelineConfig(), ["trainer.run_config.margin=1"])
    with pytest.raises(ValueError, match="params: dropout is a field of its own"):
        resolve("fast", params={"dropout": 0.5})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("root=/r/a[1]", r"root: a path with '\[' is a pattern to TensorFlow"),
        ("root=/r/*", r"root: a path with '\*' is a pattern"),
        ("root=/r/what?", r"root: a path with '\?' is a pattern"),
        ("root=/r/back\\slash", r"root: a path with '\\\\' is a pattern"),
        ("push.destination=/models/[new]", r"push\.destination: a path with '\['"),
        ("trainer.checkpoint_dir=/c/*", r"trainer\.checkpoint_dir: a path with '\*'"),
        ("root=s3://bucket/root", "root: must be a folder of this machine, got 's3://bucket/root'"),
        (
            f"root=/r/{'d' * 240}/{'e' * 251}",
            "root: SQLite opens paths of 504 bytes at most.* would have 507",
        ),
        (f"name={'n' * 129}", "name: string should have at most 128 characters"),
        (f"push.model_name={'m' * 256}", r"push\.model_name: string should have at most 255 characters"),
    ],
)
def test_a_path_or_a_name_that_a_library_cannot_take_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        with_settings(PipelineConfig(), [setting])


@pytest.mark.parametrize("name", ["with space", "rüt", "a,b", "100%", "{x}", "a#b", "it's", "a@2"])
def test_other_characters_are_taken(name: str) -> None:
    assert with_settings(PipelineConfig(), [f"root=/r/{name}"]).root == Path("/r", name)


def test_the_longest_root_and_a_longer_one_with_another_database() -> None:
    root = f"/r/{'d' * 240}/{'e' * 248}"
    assert len(str(with_settings(PipelineConfig(), [f"root={root}"]).metadata_path)) == 504
    assert with_settings(PipelineConfig(), ["metadata.mysql_host=db", f"root={root}eee"])


def test_a_home_folder_that_nothing_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)

    def nobody(_: object) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ConfigError, match=r"^root: nothing says where the home folder ~ is"):
        with_settings(PipelineConfig(), ["root=~/runs"])


@pytest.mark.parametrize(
    ("given", "kind"), [("true", "float16"), (True, "float16"), ("int8", "int8"), ("false", "")]
)
def test_a_lite_model_is_a_kind_or_yes(given: object, kind: str) -> None:
    assert PipelineConfig().replace("push", lite=given).push.lite == kind
    with pytest.raises(ConfigError, match=r"push.lite"):
        PipelineConfig().replace("push", lite="int4")
