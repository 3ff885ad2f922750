"""What the Trainer would refuse is refused before anything runs: one line, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli.main import main
from pipeline.config import ConfigError, PipelineConfig
from pipeline.resolve import with_facts
from tests.conftest import idx_bytes

COMPILE = ("compile", "--set", "push.to=artifact", "--image", "registry.example/mnist:1")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A data set of images of 20 x 24 pixels."""
    folder = tmp_path / "small"
    folder.mkdir()
    for split in ("train", "t10k"):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((120, 20, 24), np.uint8)))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(
            idx_bytes((np.arange(120) % 10).astype(np.uint8))
        )
    return folder


@pytest.mark.parametrize("command", [("run",), COMPILE], ids=["run", "compile"])
@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("fsat", "unknown recipe 'fsat': did you mean 'fast'?"),
        (
            "accurate",
            "images of 20 x 24 pixels are too small for the network 'deep', which takes 25 x 25 or larger: "
            "take recipe tutorial or fast",
        ),
    ],
)
def test_a_recipe_that_cannot_train_is_refused(
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    recipe: str,
    message: str,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    done = CliRunner().invoke(
        main, [*command, "--data-dir", str(small), "--set", f"trainer.recipe={recipe}"]
    )

    assert done.exit_code == 2
    assert done.output == f"mnist: {message}\n"
    assert not list(Path().iterdir())


def test_a_network_of_ones_own_takes_what_it_takes(small: Path) -> None:
    config = PipelineConfig().replace("trainer", recipe="accurate")
    own = config.replace("trainer", build_network="tests.unit.trainer.own_model.build_network")

    with pytest.raises(ConfigError, match="too small"):
        with_facts(config, small)
    assert with_facts(own, small).data.shape.height == 20


def test_settings_of_the_size_count_where_no_data_are_here() -> None:
    config = PipelineConfig().replace("data", size="11x28")

    with pytest.raises(
        ConfigError, match=r"images of 11 x 28 pixels .* 12 x 12 or larger: take recipe tutorial"
    ):
        with_facts(config, None)
