"""Each node's hash covers the code that its work imports, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.code_hash import CODE_OF_NODE, code_hashes
from pipeline.config import ConfigError, PipelineConfig, TrainerConfig

REPOSITORY = Path(__file__).parents[3]
TRAINING = {"Trainer", "Tuner"}


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's sources, found before those that run here."""
    for package in ("components", "serving", "trainer"):
        shutil.copytree(
            REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys() == CODE_OF_NODE.keys()
    return {node for node in before if before[node] != after[node]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "nodes"),
    [
        ("components/evaluator/gates.py", {"Evaluator"}),
        ("components/image_example_gen/split.py", {"ImageExampleGen"}),
        ("components/data_gate/checks.py", {"DataGate"}),
        ("components/curated_schema/executor.py", {"CuratedSchema"}),
        ("components/report_gen/page.html.j2", {"ReportGen"}),
        ("components/shared/page.css", {"ReportGen"}),
        ("serving/loader.py", {"ServingValidator"}),
        ("trainer/preprocessing.py", {"Transform"}),
        ("trainer/estimator.py", TRAINING),
        ("trainer/tune.py", {"Tuner"}),
        # Named by a string in the registry.
        ("trainer/networks/deep.py", TRAINING),
        (
            "components/artifacts.py",
            {node for node in CODE_OF_NODE if node not in ("Transform", *TRAINING)},
        ),
    ],
)
def test_an_edit_changes_the_nodes_that_import_the_file(sources: Path, file: str, nodes: set[str]) -> None:
    before = code_hashes(TrainerConfig())
    with (sources / file).open("a") as edited:
        edited.write("\n")
    assert changed(before, code_hashes(TrainerConfig())) == nodes


@pytest.mark.slow
def test_a_new_file_in_a_node_s_folder_counts(sources: Path) -> None:
    before = code_hashes(TrainerConfig())
    (sources / "components/evaluator/more.py").write_text("")
    assert changed(before, code_hashes(TrainerConfig())) == {"Evaluator"}


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["model_fn", "build_network"])
@pytest.mark.parametrize(
    "statement",
    ["import helpers", "from helpers import scale", "from . import helpers", "from .helpers import scale"],
)
def test_what_a_user_s_file_imports_counts_for_training_alone(
    sources: Path, setting: str, statement: str
) -> None:
    package = sources / "of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text(f"import numpy\n{statement}\n\ndef model_fn(): ...\n")
    folder = package if "." in statement else sources
    (folder / "helpers.py").write_text("scale = 1\n")
    settings = TrainerConfig(**{setting: "of_mine.model.model_fn"})
    before = code_hashes(settings)
    assert changed(before, code_hashes(TrainerConfig())) == TRAINING

    (folder / "helpers.py").write_text("scale = 2\n")

    assert changed(before, code_hashes(settings)) == TRAINING


@pytest.mark.parametrize("path", ["no_such_module.model_fn", "trainer.no_such.model_fn", "model_fn"])
def test_a_path_without_a_module_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=rf"trainer.model_fn={path}: there is no module"):
        code_hashes(TrainerConfig(model_fn=path))


def test_a_user_s_file_that_is_no_python_is_refused(sources: Path) -> None:
    (sources / "mine.py").write_text("def model_fn(:\n")
    with pytest.raises(ConfigError, match=r"mine\.py, line 1: "):
        code_hashes(TrainerConfig(model_fn="mine.model_fn"))


def test_every_node_of_ours_has_the_hash_among_its_properties() -> None:
    from pipeline.definition import create_pipeline, create_tuning_pipeline

    config = PipelineConfig().model_copy(update={"code": {node: f"<{node}>" for node in CODE_OF_NODE}})
    nodes = {
        node.id: node
        for pipeline in (create_pipeline(config), create_tuning_pipeline(config, trials=1))
        for node in pipeline.components
    }

    ours = {name for name, node in nodes.items() if type(node).__module__.startswith("components.")}
    assert ours | {"Transform", *TRAINING} == CODE_OF_NODE.keys()
    for name, node in nodes.items():
        said = any(f"<{name}>" in str(value) for value in node.exec_properties.values())
        assert said == (name in CODE_OF_NODE)
