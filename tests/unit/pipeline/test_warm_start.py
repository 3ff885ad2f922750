"""`trainer.warm_start_from` before anything runs: what it names, and what the nodes get of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.types.standard_artifacts import Model

from pipeline import definition, resolve, warm_start
from pipeline.config import ConfigError, PipelineConfig, with_settings
from pipeline.history.connection import connection_config
from pipeline.nodes import NodeId
from trainer.features import KEPT_FOLDER


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """An Estimator's folder with two checkpoints of one variable, which no network here has."""
    folder = tmp_path / "model_dir"
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("dense/kernel", [2, 3])
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(save_relative_paths=True)
        folder.mkdir()
        for step in (1, 20):
            saver.save(session, str(folder / "model.ckpt"), step)
    return folder


def config(*settings: str) -> PipelineConfig:
    return with_settings(PipelineConfig(), settings)


def begins_with(given: object, *settings: str) -> PipelineConfig:
    return warm_start.on_this_machine(config(f"trainer.warm_start_from={given}", *settings))


def test_a_folder_and_a_checkpoint_in_it_are_told_apart(model_dir: Path) -> None:
    whole = begins_with(model_dir).trainer
    one, same = (begins_with(f"{model_dir}/model.ckpt-1{end}").trainer for end in ("", ".index"))
    assert (whole.warm_start_from, whole.warm_start_checkpoint) == (str(model_dir), "")
    assert (one.warm_start_from, one.warm_start_checkpoint) == (str(model_dir), "model.ckpt-1")
    assert one == same
    assert len({whole.warm_start_fingerprint, one.warm_start_fingerprint, ""}) == 3


def test_other_contents_are_another_fingerprint(model_dir: Path) -> None:
    before = begins_with(model_dir).trainer.warm_start_fingerprint
    (model_dir / "model.ckpt-20.index").write_bytes(b"other")
    assert begins_with(model_dir).trainer.warm_start_fingerprint != before


def test_the_trainer_gets_it_as_its_base_model_and_the_cache_knows_it(model_dir: Path) -> None:
    found = begins_with(model_dir, "trainer.vars_to_warm_start=dense").replace("data", uri="data")
    nodes = {node.id: node for node in definition.create_pipeline(found).components}
    importer = nodes[NodeId.WARM_START]
    assert importer.exec_properties["artifact_uri"] == str(model_dir)
    assert importer.outputs["result"].type is Model
    assert importer.outputs["result"].additional_custom_properties == {
        "fingerprint": found.trainer.warm_start_fingerprint
    }
    trainer = nodes[NodeId.TRAINER]
    assert trainer.inputs["base_model"] is importer.outputs["result"]
    custom = trainer.exec_properties["custom_config"]
    assert '"vars_to_warm_start": "dense"' in custom
    assert found.trainer.warm_start_fingerprint in custom
    without = definition.create_pipeline(config().replace("data", uri="data")).components
    assert NodeId.WARM_START not in {node.id for node in without}


@pytest.mark.slow
def test_what_does_not_fit_is_refused_before_the_first_node(model_dir: Path) -> None:
    given = begins_with(
        model_dir,
        "trainer.vars_to_warm_start=conv",
        "trainer.recipe=tutorial",
        "data.size=28x28",
        "data.num_classes=10",
    )
    with pytest.raises(
        ConfigError, match=r"^trainer\.warm_start_from: .*model\.ckpt-20 has no conv1/kernel, conv1/bias"
    ):
        resolve.with_facts(given, None, str(model_dir))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["trainer.warm_start_from=/no/where"],
            "there is no such folder or checkpoint; a run is given as run",
        ),
        (["trainer.warm_start_from=run:20"], "there is no run below"),
        (
            ["trainer.continue=true"],
            "trainer: continue needs warm_start_from: set trainer.warm_start_from=",
        ),
        (["trainer.evaluate_only=true"], "trainer: evaluate_only needs warm_start_from"),
        (["trainer.vars_to_warm_start=("], r"trainer\.vars_to_warm_start: this is no regular expression"),
        (
            ["trainer.warm_start_from=x", "trainer.continue=true", "trainer.evaluate_only=true"],
            "continue makes steps and evaluate_only makes none",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(tmp_path: Path, settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        warm_start.on_this_machine(config(f"root={tmp_path}", *settings))


@pytest.fixture
def past_run(tmp_path: Path) -> Path:
    """The root of a run, 20260131-1, whose Trainer has kept the checkpoints of steps 7 and 80."""
    root = tmp_path / "var"
    model_run = root / "model_run" / "3"
    (model_run / KEPT_FOLDER).mkdir(parents=True)
    for step in (7, 80):
        (model_run / KEPT_FOLDER / f"checkpoint-{step}.npz").write_bytes(str(step).encode())
    store = MetadataStore(connection_config(config(f"root={root}")))

    def made(kind: Any, put_type: Any, name: str) -> int:
        return put_type(kind(name=name))

    run, node = (
        mlmd.Context(type_id=made(mlmd.ContextType, store.put_context_type, kind), name=name)
        for kind, name in (("pipeline_run", "20260131-1"), ("node", f"mnist.{NodeId.TRAINER}"))
    )
    execution = mlmd.Execution(
        type_id=made(mlmd.ExecutionType, store.put_execution_type, "Trainer"),
        last_known_state=mlmd.Execution.COMPLETE,
    )
    artifact = mlmd.Artifact(
        type_id=made(mlmd.ArtifactType, store.put_artifact_type, "ModelRun"), uri=str(model_run)
    )
    event = mlmd.Event(
        type=mlmd.Event.OUTPUT, path=mlmd.Event.Path(steps=[mlmd.Event.Path.Step(key="model_run")])
    )
    store.put_execution(execution, [(artifact, event)], [run, node])
    return root


def test_a_run_is_its_last_checkpoint_or_the_one_of_a_step(past_run: Path) -> None:
    def of(given: str) -> Any:
        return begins_with(given, f"root={past_run}").trainer

    folder = past_run / "model_run" / "3"
    for given in ("run:20260131-1", "run:2026", "run:"):
        assert (of(given).warm_start_from, of(given).warm_start_checkpoint) == (str(folder), "")
    last, first = of("run:2026@80"), of("run:2026@7")
    assert last.warm_start_from == first.warm_start_from == str(folder / KEPT_FOLDER)
    assert (last.warm_start_checkpoint, first.warm_start_checkpoint) == (
        "checkpoint-80.npz",
        "checkpoint-7.npz",
    )
    assert last.warm_start_fingerprint != first.warm_start_fingerprint
    with pytest.raises(ConfigError, match="run 20260131-1 has no checkpoint of step 70; there are 7, 80"):
        of("run:2026@70")
    with pytest.raises(ConfigError, match="there is no run '2025'"):
        of("run:2025")


@pytest.mark.slow
def test_a_cluster_gets_the_address_and_no_run_of_this_machine() -> None:
    given = config(
        "trainer.warm_start_from=s3://bucket/models/model.ckpt-7",
        "trainer.warm_start_fingerprint=newer",
        "data.size=28x28",
    )
    found = resolve.for_a_cluster(given.replace("data", num_classes=10), None).trainer
    assert (found.warm_start_from, found.warm_start_checkpoint) == ("s3://bucket/models", "model.ckpt-7")
    assert found.warm_start_fingerprint == "newer"
    with pytest.raises(ConfigError, match="this machine's runs are not known in the cluster"):
        warm_start.in_a_cluster(config("trainer.warm_start_from=run:2026"))


def test_names_of_variables_are_settings() -> None:
    given = config(
        "trainer.warm_start_from=x", "trainer.var_name_to_prev_var_name.conv1/kernel=conv2d/kernel"
    )
    assert given.trainer.var_name_to_prev_var_name == {"conv1/kernel": "conv2d/kernel"}
