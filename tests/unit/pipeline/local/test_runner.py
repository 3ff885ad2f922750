"""The local runner: states, caching, failures, and a process of its own for the Trainer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from apache_beam.runners.portability import prism_runner
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline

from pipeline.beam_config import LOCAL_BEAM_ARGS
from pipeline.history.run_id import new_run_id
from pipeline.local import interruption, runner
from pipeline.nodes import NodeState
from pipeline.runtime.gpus import VISIBLE_DEVICES
from tests.unit.pipeline import toy_nodes

NODES = ["First", "Trainer", "Last"]


class Recorder:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple] = []

    def planned(self, nodes: list[str]) -> None:
        self.events.append(("planned", nodes))

    def started(self, node: str) -> None:
        self.events.append(("started", node))

    def progressed(self, progress: dict[str, Any]) -> None:
        self.events.append(("progressed", progress))

    def finished(self, node: str, state: str, seconds: float) -> None:
        assert seconds > 0
        self.events.append(("finished", node, state))

    def states(self) -> dict[str, str]:
        return {event[1]: event[2] for event in self.events if event[0] == "finished"}


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    folder = tmp_path / "orders"
    folder.mkdir()
    return folder


def toy(tmp_path: Path) -> Pipeline:
    orders = str(tmp_path / "orders")
    first = toy_nodes.First(orders=orders)
    trainer = toy_nodes.Trainer(orders=orders, before=first.outputs["output"])
    last = toy_nodes.Last(orders=orders, before=trainer.outputs["output"])
    return pipeline_of(tmp_path, [first, trainer, last])


def pipeline_of(tmp_path: Path, components: list) -> Pipeline:
    return Pipeline(
        pipeline_name="toy",
        pipeline_root=str(tmp_path / "pipelines" / "toy"),
        components=components,
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(
            str(tmp_path / "metadata.db")
        ),
        beam_pipeline_args=list(LOCAL_BEAM_ARGS),
    )


def run(tmp_path: Path, **options: Any) -> Recorder:
    recorder = Recorder()
    runner.run(toy(tmp_path), recorder, new_run_id(), **options)
    return recorder


@pytest.mark.slow
@pytest.mark.usefixtures("orders")
def test_nodes_run_in_order_then_come_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def downloads(*_: object, **__: object) -> None:
        raise AssertionError("Beam tried its Prism runner, which downloads a binary")

    monkeypatch.setattr(prism_runner.PrismRunner, "__init__", downloads)
    first = run(tmp_path)
    assert first.events[0] == ("planned", NODES)
    assert [e for e in first.events if e[0] != "planned"] == [
        event for node in NODES for event in (("started", node), ("finished", node, "done"))
    ]
    assert run(tmp_path).states() == dict.fromkeys(NODES, "cached")


@pytest.mark.slow
def test_a_failed_node_is_named_and_the_next_run_goes_on_from_it(tmp_path: Path, orders: Path) -> None:
    order = orders / "Trainer after First"
    order.write_text("the disk is on fire")
    with pytest.raises(runner.NodeError, match=r"^the disk is on fire$") as caught:
        run(tmp_path)
    assert caught.value.node == "Trainer"
    order.unlink()
    assert run(tmp_path).states() == {"First": "cached", "Trainer": "done", "Last": "done"}


@pytest.mark.slow
def test_a_node_that_shall_run_again_does_and_those_after_it_follow(tmp_path: Path, orders: Path) -> None:
    del orders
    run(tmp_path)

    again = run(tmp_path, rerun={"Trainer"})

    assert again.states() == {"First": "cached", "Trainer": "done", "Last": "done"}
    assert run(tmp_path).states() == dict.fromkeys(NODES, "cached")


@pytest.mark.slow
def test_outputs_of_a_cached_node_are_those_of_the_run_that_made_them(tmp_path: Path, orders: Path) -> None:
    del orders
    pipeline = toy(tmp_path)
    uris = []
    for _ in range(2):
        nodes = runner.run(toy(tmp_path), Recorder(), new_run_id())
        execution_id = nodes["Last"].execution_id
        assert execution_id is not None
        (artifact,) = runner.output_artifacts(pipeline, execution_id, "output")
        uris.append(artifact.uri)
    assert uris[0] == uris[1]


@pytest.mark.slow
def test_only_the_trainer_sees_the_gpus(
    tmp_path: Path, orders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VISIBLE_DEVICES, "0,1")
    assert run(tmp_path, trainer_in_new_process=True).states() == dict.fromkeys(NODES, "done")
    ran = {path.stem: json.loads(path.read_text()) for path in orders.glob("*.ran")}
    trainer = ran.pop("Trainer after First")
    assert trainer["visible"] == "0,1"
    assert trainer["pid"] != os.getpid()
    for node in ("First", "Last"):
        assert ran[node] == {"pid": os.getpid(), "visible": "-1"}
    assert os.environ[VISIBLE_DEVICES] == "0,1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "said"),
    [("out of memory", r"^out of memory$"), ("die", r"ended without a word \(exit code 9\)")],
)
def test_a_trainer_that_fails_in_its_own_process_is_reported(
    tmp_path: Path, orders: Path, order: str, said: str
) -> None:
    (orders / "Trainer after First").write_text(order)
    with pytest.raises(runner.NodeError, match=said) as caught:
        run(tmp_path, trainer_in_new_process=True)
    assert caught.value.node == "Trainer"
    (orders / "Trainer after First").unlink()
    assert run(tmp_path).states() == {"First": "cached", "Trainer": "done", "Last": "done"}


def test_an_interruption_that_c_code_turned_into_an_error_is_one(tmp_path: Path, orders: Path) -> None:
    (orders / "First").write_text("be interrupted in C")
    recorder = Recorder()
    with interruption.repeated_interrupts(), pytest.raises(KeyboardInterrupt):
        runner.run(toy(tmp_path), recorder, new_run_id())
    assert recorder.states() == {"First": NodeState.INTERRUPTED}


def forked(tmp_path: Path) -> Pipeline:
    """First, then Side and Trainer, then Join."""
    orders = str(tmp_path / "orders")
    first = toy_nodes.First(orders=orders)
    side = toy_nodes.Side(orders=orders, before=first.outputs["output"])
    trainer = toy_nodes.Trainer(orders=orders, before=first.outputs["output"])
    join = toy_nodes.Join(orders=orders, before=trainer.outputs["output"], side=side.outputs["output"])
    return pipeline_of(tmp_path, [first, side, trainer, join])


def run_forked(tmp_path: Path) -> Recorder:
    recorder = Recorder()
    runner.run(forked(tmp_path), recorder, new_run_id(), parallel={"Side"})
    return recorder


@pytest.mark.slow
def test_a_node_runs_beside_those_that_do_not_need_it(tmp_path: Path, orders: Path) -> None:
    # In turn it would wait in vain.
    (orders / "Side").write_text("wait for the Trainer")
    recorder = run_forked(tmp_path)
    assert recorder.states() == dict.fromkeys(["First", "Side", "Trainer", "Join"], "done")
    assert recorder.events.index(("finished", "Side", "done")) < recorder.events.index(("started", "Join"))
    assert (orders / "Join of Trainer after First and Side.ran").exists()
    assert set(run_forked(tmp_path).states().values()) == {"cached"}


@pytest.mark.slow
def test_a_node_that_fails_beside_others_is_named_and_they_are_kept(tmp_path: Path, orders: Path) -> None:
    (orders / "Side").write_text("no server")
    with pytest.raises(runner.NodeError, match=r"^no server$") as caught:
        run_forked(tmp_path)
    assert caught.value.node == "Side"
    (orders / "Side").unlink()
    states = {"First": "cached", "Trainer": "cached", "Side": "done", "Join": "done"}
    assert run_forked(tmp_path).states() == states


@pytest.mark.slow
def test_a_run_that_failed_leaves_no_node_behind(tmp_path: Path, orders: Path) -> None:
    (orders / "Side").write_text("wait for the Trainer")
    (orders / "Trainer after First").write_text("out of memory")
    recorder = Recorder()
    with pytest.raises(runner.NodeError, match=r"^out of memory$"):
        runner.run(forked(tmp_path), recorder, new_run_id(), parallel={"Side"})
    assert recorder.states() == {"First": "done", "Side": "done", "Trainer": "failed"}
