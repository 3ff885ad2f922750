"""What the Trainer would refuse is refused before anything runs: one line, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pipeline import code_hash
from pipeline.cli.main import main
from pipeline.config import ConfigError, PipelineConfig, with_settings
from pipeline.resolve import for_a_cluster, for_this_machine, inspect, with_facts
from pipeline.runtime import gpus
from tests.conftest import idx_bytes, write_pair
from tests.unit.components.image_example_gen.sources.data import class_folders
from tests.unit.trainer.test_base_network import saved
from trainer import base_files
from trainer.features import ImageInput, ImageShape

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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "accuracy", "class_accuracy"),
    [
        ([], 0.97, 0.93),
        (["trainer.recipe=tutorial"], 0.96, 0.93),
        (["trainer.recipe=tutorial", "gates.accuracy=0.97"], 0.97, 0.93),
        (["trainer.recipe=cifar", "gates.class_accuracy=0.5"], 0.9, 0.5),
    ],
)
def test_a_recipe_brings_gates_unless_settings_say_others(
    small: Path, settings: list[str], accuracy: float, class_accuracy: float
) -> None:
    config = with_settings(PipelineConfig(root=small / "root"), settings)
    # Another section has changed before.
    gates = with_facts(config.replace("data", uri="minio://bucket/data"), small).gates
    assert (gates.accuracy, gates.class_accuracy) == (accuracy, class_accuracy)


@pytest.mark.slow
@pytest.mark.parametrize("command", [("run",), COMPILE], ids=["run", "compile"])
@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("fsat", "unknown recipe 'fsat': did you mean 'fast'?"),
        (
            "cifar-tutorial",
            "images of 20 x 24 pixels are too small for trainer.crop=24: change that setting, or take "
            "recipe tutorial or fast or accurate or residual or cifar, or set data.size",
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


def data_set(folder: Path, train: list[int], test: list[int] | None) -> Path:
    """IDX files with so many images of each class, 20 x 24 pixels; None: no test files."""
    folder.mkdir()
    for split, counts in (("train", train), ("t10k", test)):
        if counts is not None:
            labels = np.repeat(np.arange(len(counts)), counts).astype(np.uint8)
            write_pair(folder, split, np.zeros((len(labels), 20, 24), np.uint8), labels)
    return folder


FEW = {
    "one class": ([40], [20], "fewer than two classes: a classifier needs two or more", ""),
    "too few to validate": (
        [6, 5],
        None,
        "11 examples: at least 12 are needed for training, one to validate",
        "",
    ),
    "few test images of a class": (
        [40, 40],
        [20, 3],
        "gates.class_examples = 10, but class 1 has 3 test images",
        "gates.class_examples=3",
    ),
    "no test image of a class": (
        [40, 40, 40],
        [20, 20, 0],
        "gates.class_examples = 10, but class 2 has 0 test images",
        "gates.class_examples=0 data_gate.allow=test.missing_class",
    ),
    "no training image of a class": (
        [40, 0, 40],
        [20, 20, 20],
        "no training image of class 1",
        "data_gate.allow=train.missing_class",
    ),
    "few images to cut a test split from": (
        [30, 30],
        None,
        "gates.class_examples = 10, but the test split has 10 images in all, cut off from those for "
        "training, of 2 classes",
        "gates.class_examples=0",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", [("run",), COMPILE], ids=["run", "compile"])
@pytest.mark.parametrize("case", FEW)
def test_data_that_no_model_could_pass_with_are_refused_and_the_hint_helps(
    case: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test, message, settings = FEW[case]
    folder = data_set(tmp_path / "data", train, test)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    given = ["data.num_classes=3"] if len(train) == 3 else []

    done = CliRunner().invoke(
        main, [*command, "--data-dir", str(folder), *(f"--set={setting}" for setting in given)]
    )

    assert done.exit_code == 2
    assert not list(Path().iterdir())
    assert len(done.output.splitlines()) == 1
    assert done.output.startswith(f"mnist: {folder}: {message}")
    if settings:
        options = " ".join(f"--set {setting}" for setting in settings.split())
        assert done.output.endswith(f"add images, or go without them with {options}\n")
        with_facts(with_settings(PipelineConfig(), [*given, *settings.split()]), folder)


@pytest.mark.slow
def test_a_class_that_no_split_has_stops_nothing_and_is_announced(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "data", [40, 0, 40], [20, 0, 20])
    config = with_settings(PipelineConfig(), ["data.num_classes=3"])

    assert with_facts(config, folder).data.num_classes == 3
    said = CliRunner().invoke(main, ["data", "check", str(folder), "--set", "data.num_classes=3"])
    assert said.exit_code == 0
    assert "note   no example of class 1 in any split" in said.output.splitlines()


@pytest.mark.slow
def test_labels_from_1_are_read_again_as_they_were_found(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "t10k"):
        labels = np.repeat(np.array([1, 2, 3], np.uint8), 20)
        write_pair(tmp_path / "data", split, np.zeros((60, 20, 24), np.uint8), labels)
    found = with_facts(PipelineConfig(), tmp_path / "data").data

    # As ImageExampleGen does, with what the config then says.
    again = inspect(found, tmp_path / "data")
    assert (again.class_names, again.counts) == (("1", "2", "3"), {"train": (20,) * 3, "test": (20,) * 3})


@pytest.mark.parametrize(
    ("shape", "dataset", "names", "kind", "fit"),
    [
        ((28, 28, 1), "mnist", "0,1,2", "auto", "center"),
        ((28, 28, 1), "fashion-mnist", "0,1,2", "auto", "crop"),
        ((28, 28, 1), "/data/mine", "0,1,2", "auto", "center"),
        ((28, 28, 1), "/data/mine", "cat,dog", "auto", "crop"),
        ((28, 28, 3), "mnist", "0,1,2", "auto", "crop"),
        ((28, 28, 1), "mnist", "0,1,2", "photos", "crop"),
        ((28, 28, 1), "/data/mine", "cat,dog", "digits", "center"),
    ],
)
def test_digits_are_centred_and_others_resized(
    shape: tuple[int, int, int], dataset: str, names: str, kind: str, fit: str
) -> None:
    settings = {"shape": shape, "dataset": dataset, "class_names": names, "kind": kind}
    assert PipelineConfig().replace("data", **settings).data.images.fit == fit


@pytest.mark.slow
def test_digits_have_no_colours(tmp_path: Path) -> None:
    class_folders(tmp_path, per_class=12)
    settings = ["data.size=28x28", "data.kind=digits", "gates.class_examples=0"]
    found = with_facts(with_settings(PipelineConfig(), settings), tmp_path).data
    assert found.images == ImageInput(ImageShape(28, 28, 1), encoded=True, fit="center")
    with pytest.raises(ConfigError, match=r"data.kind = digits is for grey images: set data.channels=1"):
        PipelineConfig().replace("data", shape=(28, 28, 3), kind="digits")


@pytest.mark.slow
def test_what_is_allowed_already_stays_allowed(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "data", [40, 0, 40], [20, 20, 20])
    config = with_settings(PipelineConfig(), ["data.num_classes=3", "data_gate.allow=test.leakage"])

    with pytest.raises(ConfigError, match=r"data_gate\.allow=test\.leakage,train\.missing_class$"):
        with_facts(config, folder)
    for_all = config.replace("data_gate", allow=("train.*",))
    assert with_facts(for_all, folder).data.num_classes == 3


@pytest.mark.slow
def test_a_network_of_ones_own_takes_what_it_takes(small: Path) -> None:
    config = PipelineConfig().replace("trainer", recipe="cifar-tutorial")
    own = config.replace("trainer", build_network="tests.unit.trainer.own_model.build_network")

    with pytest.raises(ConfigError, match="too small"):
        with_facts(config, small)
    assert with_facts(own, small).data.shape.height == 20


@pytest.mark.slow
def test_settings_of_the_size_count_where_no_data_are_here() -> None:
    config = PipelineConfig().replace("data", size="7x28")

    with pytest.raises(
        ConfigError, match=r"images of 7 x 28 pixels .* 8 x 8 or larger: take recipe tutorial"
    ):
        with_facts(config, None)


@pytest.mark.parametrize("settings", [(), ("data.size=28x28",), ("data.num_classes=10",)])
def test_images_that_nobody_described_are_not_compiled_for(
    settings: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [part for setting in settings for part in ("--set", setting)]

    done = CliRunner().invoke(main, [*COMPILE, *options])

    assert done.exit_code == 2
    assert "give a copy of the data with --data-dir, or --set data.size=28x28" in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_fetched_copy_of_the_same_name_says_what_the_images_are(small: Path, tmp_path: Path) -> None:
    config = with_settings(PipelineConfig(), [f"root={tmp_path / 'var'}", "data.dataset=letters"])
    (tmp_path / "var/data").mkdir(parents=True)
    small.rename(tmp_path / "var/data/letters")

    for uri in ("", "s3://bucket/data/letters/"):
        found = for_a_cluster(config.replace("data", uri=uri), None).data
        assert (found.shape.height, found.shape.width, found.uri) == (20, 24, uri)
        assert found.fingerprint
    with pytest.raises(ConfigError, match="nothing says"):
        for_a_cluster(config.replace("data", uri="s3://bucket/data/others"), None)


@pytest.mark.slow
def test_settings_describe_images_that_are_not_here() -> None:
    config = with_settings(PipelineConfig(), ["data.size=64x48", "data.num_classes=5"])

    found = for_a_cluster(config, None).data

    assert (found.shape.height, found.shape.width, found.num_classes) == (64, 48, 5)


def test_a_baseline_that_is_no_model_is_refused_before_anything_runs(small: Path, tmp_path: Path) -> None:
    config = PipelineConfig().replace("baseline", uri=str(tmp_path))
    with pytest.raises(ConfigError, match=r"baseline\.uri: there is no SavedModel in"):
        for_this_machine(config, small)


def test_workers_that_cannot_train_together_are_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(settings: list[str], reason: str) -> None:
        with pytest.raises(ConfigError, match=f"^{reason}"):
            for_this_machine(with_settings(PipelineConfig(), ["trainer.workers=2", *settings]), small)

    refused(["trainer.gpus=1"], "trainer: workers are processes on the CPU")
    refused(
        ["trainer.warm_start_from=run:", "trainer.evaluate_only=true"], "trainer: evaluate_only makes no"
    )
    refused(
        ["trainer.recipe=pretrained"], "the network 'pretrained' is not trained: leave trainer.workers out"
    )
    with pytest.raises(
        ConfigError, match=r"^trainer.workers=2: these are processes of one machine, .* set kub"
    ):
        for_a_cluster(with_settings(PipelineConfig(), ["trainer.workers=2"]), small)
    # What processes cannot do, pods cannot either, but have GPUs.
    cluster = with_settings(PipelineConfig(), ["trainer.gpus=1"])
    assert for_a_cluster(cluster, small, workers=2).trainer == for_a_cluster(cluster, small).trainer
    with pytest.raises(ConfigError, match=r"not trained: leave kubeflow\.nodes\.Trainer\.workers out$"):
        for_a_cluster(with_settings(PipelineConfig(), ["trainer.recipe=pretrained"]), small, workers=2)
    monkeypatch.setenv("TF_CONFIG", "{}")
    refused([], "trainer.workers=2: TF_CONFIG says already who trains together")
    monkeypatch.setattr(gpus, "present", lambda: True)
    refused([], "trainer.workers=2: workers train on the CPU, and one process trains on all GPUs")


@pytest.mark.slow
def test_a_run_knows_its_code_and_where_its_data_are(small: Path) -> None:
    config = for_this_machine(PipelineConfig(), small)
    assert config.code.keys() == code_hash.CODE_OF_NODE.keys()
    assert config.data.uri == str(small)


@pytest.mark.slow
def test_a_function_that_cannot_run_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    config = PipelineConfig().replace("trainer", model_fn="tests.unit.trainer.own_model.broken_model_fn")

    with pytest.raises(
        ConfigError,
        match=r"^model_fn \(.*\): in mode 'train': KeyError: 'x' \(.*own_model\.py, line \d+\): features",
    ):
        with_facts(config, None)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["gates.metrics.acuracy=0.9"],
            "gates.metrics.acuracy: .* no such metric; there are loss, accuracy$",
        ),
        (
            ["gates.metrics_at_most.mistakes=1", "trainer.model_fn=tests.unit.trainer.own_model.model_fn"],
            "gates.metrics_at_most.mistakes: .*; there are loss, accuracy$",
        ),
        (["gates.metrics.loss=high"], "gates.metrics.loss: input should be a valid number"),
        (["gates.metrics.loss=NaN"], "gates.metrics.loss: input should be a finite number"),
    ],
)
def test_a_gate_on_a_metric_that_nobody_reports_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        with_facts(with_settings(PipelineConfig(), settings), None)


@pytest.mark.slow
def test_a_gate_on_a_metric_of_ones_own_passes() -> None:
    settings = ["gates.metrics.accuracy=0.9", "trainer.model_fn=tests.unit.trainer.own_model.model_fn"]
    config = with_settings(PipelineConfig(), [*settings, "gates.metrics_at_most.loss=0.5"])
    assert with_facts(config, None).gates.metric_names.keys() == {"accuracy", "loss"}


@pytest.mark.slow
def test_a_base_of_a_compiled_pipeline_is_the_file_that_is_here(tmp_path: Path) -> None:
    config = with_settings(PipelineConfig(), ["data.size=16x16", "data.num_classes=4"])

    def fingerprint(base: str) -> str:
        given = config.replace("trainer", recipe="retrain", base=base, base_input="unit")
        found = for_a_cluster(given, None).trainer
        assert found.base == base
        return found.base_fingerprint

    file = saved(tmp_path)
    first = fingerprint(file)
    assert first == base_files.fingerprint(file, "")
    saved(tmp_path)  # with other weights
    assert fingerprint(file) != first
    for name in ("run:20", "minio://mlpipeline/base.keras"):
        with pytest.raises(ConfigError, match=rf"^trainer\.base={name}: the Trainer's pod opens neither"):
            fingerprint(name)
    with pytest.raises(ConfigError, match=r"^trainer\.base=.*: there is no such file"):
        fingerprint(str(tmp_path / "other.keras"))


@pytest.mark.slow
def test_the_files_of_a_base_are_found_before_anything_runs(small: Path, tmp_path: Path) -> None:
    config = PipelineConfig().replace("trainer", recipe="retrain", base="no/such.keras")
    with pytest.raises(ConfigError, match=r"trainer.base=no/such.keras: there is no such file"):
        for_this_machine(config, small)
    (tmp_path / "such.keras").write_bytes(b"no network")
    with pytest.raises(ConfigError, match=r"trainer.base=.*such.keras: "):
        for_this_machine(config.replace("trainer", base=str(tmp_path / "such.keras")), small)
    with pytest.raises(ConfigError, match=r"trainer.base: there is no run below"):
        for_this_machine(
            config.replace("trainer", base="run:20").model_copy(update={"root": tmp_path}), small
        )
    with pytest.raises(ConfigError, match=r"trainer.base=.*small: there is no SavedModel in"):
        for_this_machine(config.replace("trainer", base=str(small)), small)
    with pytest.raises(ConfigError, match=r"needs trainer.base: a .keras file, or a name"):
        for_this_machine(PipelineConfig().replace("trainer", recipe="retrain"), small)
    with pytest.raises(ConfigError, match=r"fetch https://.* or set trainer.base_weights"):
        for_this_machine(config.replace("trainer", base="MobileNet"), small)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "trainer.model_fn=tests.unit.trainer.own_model.broken_model_fn",
            "mnist: model_fn (tests.unit.trainer.own_model.broken_model_fn): in mode 'train': KeyError",
        ),
        (
            "trainer.warm_start_from=run:",
            "mnist: trainer.warm_start_from: each trial begins with new weights",
        ),
        ("trainer.workers=2", "mnist: trainer.workers: a trial is trained by one process: leave it out"),
    ],
)
def test_a_search_that_cannot_run_is_refused(
    setting: str, message: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    done = CliRunner().invoke(main, ["tune", "--data-dir", str(small), "--set", setting])

    assert done.exit_code == 2
    assert done.output.startswith(message)
    assert len(done.output.splitlines()) == 1
    assert not list(Path().iterdir())
