"""What a message advises helps, and is not what was just given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from ml_metadata import metadata_store
from PIL import Image

from pipeline import product
from pipeline.cli.main import main
from pipeline.cli.tune import next_command, score
from pipeline.config import PipelineConfig, with_settings
from pipeline.datasets import fetch
from pipeline.history.connection import connection_config
from pipeline.history.records import History, HistoryError
from pipeline.local.outcome import Tuned


@pytest.fixture
def empty(tmp_path: Path) -> History:
    """The history below a root in which nothing has run to its end."""
    config = with_settings(PipelineConfig(), [f"root={tmp_path / 'my runs'}"])
    config.metadata_path.parent.mkdir(parents=True)
    metadata_store.MetadataStore(connection_config(config), enable_upgrade_migration=True)
    return History(config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "hint"),
    [
        ("localhost:1", f"; `{product.NAME} serve --port 1` starts one\n"),
        ("http://localhost:1", f"; `{product.NAME} serve --rest-port 1` starts one\n"),
        (
            "127.1.2.3:1",
            "by gRPC (Connection refused)\n",
        ),  # of a server elsewhere: one started here would not be asked
    ],
)
def test_a_server_is_started_where_it_was_asked_for(host: str, hint: str, tmp_path: Path) -> None:
    picture = tmp_path / "1.png"
    Image.new("L", (28, 28)).save(picture)
    done = CliRunner().invoke(main, ["query", "--host", host, str(picture)])
    assert done.exit_code == 2
    assert "no server answers at " in done.output
    assert done.output.endswith(hint), done.output


def test_a_search_is_followed_by_a_run_on_the_same_data() -> None:
    settings = ("data.size=32x32", "trainer.learning_rate=0.1")
    said = next_command(Path("best.toml"), "letters", Path("my data"), "out", settings)
    assert said == (
        f"{product.NAME} run --recipe-file best.toml --dataset letters --data-dir 'my data' --root out "
        "--set data.size=32x32"
    )
    assert next_command(Path("best.toml"), None, None, None, ()) == (
        f"{product.NAME} run --recipe-file best.toml"
    )


def test_runs_are_listed_where_they_were_looked_for(empty: History, tmp_path: Path) -> None:
    with pytest.raises(HistoryError) as caught:
        empty.find("2026")
    assert str(caught.value) == (
        f"there is no run '2026': `{product.NAME} runs --root '{tmp_path / 'my runs'}'` lists them"
    )


def test_a_folder_without_a_model_is_not_to_be_named_again(tmp_path: Path) -> None:
    from components.shared import classifier  # TensorFlow

    with pytest.raises(classifier.ModelError, match=r"there is no model; .* or name another with --model$"):
        classifier.find(tmp_path)


def test_fetching_names_the_command_that_has_the_option(tmp_path: Path) -> None:
    with pytest.raises(fetch.FetchError, match=rf"for others use `{product.NAME} run --data-dir FOLDER`$"):
        fetch.fetch_known("letters", tmp_path)


def test_a_search_says_that_it_went_by_the_first_of_two_phases() -> None:
    tuned = Tuned(recipe={"recipe": "retrain", "fine_tune": 0}, accuracy=0.7, trials=3)
    assert score(tuned) == "0.7000 on validation, of 3 trials"
    both = replace(tuned, recipe={"recipe": "retrain", "fine_tune": 6})
    assert score(both).endswith(
        " of 3 trials, of the new layers alone: a run goes on with trainer.fine_tune=6"
    )
