"""ReportGen: figures against other libraries' own, and the page in a real browser."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from PIL import Image
from sklearn import metrics as sklearn_metrics
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact

from components.artifacts import DataBlessing, Report
from components.evaluator.robustness import CORRUPTIONS
from components.image_example_gen.sources import idx, idx_pairs
from components.image_example_gen.sources.idx_folder import IdxFolder
from components.report_gen import page
from components.report_gen.executor import Executor
from components.shared import chart, verdict
from components.shared.names import REPORT_FILE, SUMMARY_FILE
from pipeline.schema import schema_text
from tests.conftest import TINY_TEST, TINY_TRAIN
from tests.unit.components.digits import GATES, judge, write_examples
from tests.unit.components.nearest import Nearest
from trainer import features, recipes

CHROMIUM = shutil.which("chromium")
SPLITS = (features.TRAIN, features.VALIDATION, features.TEST)
HISTORY = {"loss": [1.2, 0.4, 0.3], "accuracy": [0.5, 0.8, 0.9], "val_loss": [0.5], "val_accuracy": [0.8]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_mnist_dir: Path) -> dict[str, Artifact]:
    """The artifacts of a run on the tiny data set, each made by what makes it in a pipeline."""
    root = tmp_path_factory.mktemp("artifacts")
    made: dict[str, Artifact] = {
        "statistics": standard_artifacts.ExampleStatistics(),
        "anomalies": standard_artifacts.ExampleAnomalies(),
        "data_blessing": DataBlessing(),
        "model_run": standard_artifacts.ModelRun(),
        "evaluation": standard_artifacts.ModelEvaluation(),
        "model_blessing": standard_artifacts.ModelBlessing(),
        "infra_blessing": standard_artifacts.InfraBlessing(),
        "pushed_model": standard_artifacts.PushedModel(),
    }
    for name, artifact in made.items():
        artifact.uri = str(root / name)
    files = idx.find_files(tiny_mnist_dir)
    train = next(idx_pairs.stream(files.train_images, files.train_labels, TINY_TRAIN, None))
    test = next(idx_pairs.stream(files.test_images, files.test_labels, TINY_TEST, None))
    split_up = {
        features.TRAIN: (train[0][:550], train[1][:550]),
        features.VALIDATION: (train[0][550:], train[1][550:]),
        features.TEST: test,
    }
    made["examples"] = examples = write_examples(root / "examples", split_up)
    examples.set_int_custom_property("num_classes", 10)
    for name in ("statistics", "anomalies"):
        made[name].split_names = examples.split_names
    examples.set_string_custom_property("fingerprint", IdxFolder(tiny_mnist_dir).inspect().fingerprint)
    schema = tfdv.load_schema_text(_written(root / "schema.pbtxt", schema_text(10)))
    for split, (_, labels) in split_up.items():
        statistics = tfdv.generate_statistics_from_dataframe(
            pd.DataFrame({features.LABEL: labels.astype(np.int64)}), tfdv.StatsOptions(schema=schema)
        )
        _written(
            Path(artifact_utils.get_split_uri([made["statistics"]], split), "FeatureStats.pb"),
            statistics.SerializeToString(),
        )
        _written(
            Path(artifact_utils.get_split_uri([made["anomalies"]], split), "SchemaDiff.pb"),
            anomalies_pb2.Anomalies().SerializeToString(),
        )
    Nearest(*train).save(root / "model" / "Format-Serving")
    Nearest(train[0][:40], train[1][:40]).save(root / "in-production")
    gates = GATES.model_copy(update={"class_accuracy_drop": 0.02})
    judged = judge(root, examples, root / "model", root / "in-production", gates)
    assert judged.folder == made["evaluation"].uri
    training = {
        "steps": 60,
        "train_examples": 550,
        "validation_examples": 50,
        "train_seconds": 1.5,
        "images_per_s": 5000.0,
        "precision": "float32",
        "validation_accuracy": 0.8,
        "validation_metrics": {"loss": 0.5, "accuracy": 0.8, "auc": 0.875, "global_step": 7},
        "history": HISTORY,
        "params": dataclasses.asdict(recipes.resolve("fast")),
        "weights_sha256": "0" * 64,
    }
    _written(root / "model_run" / "metrics.json", json.dumps(training))
    return made


def _written(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


Make = Callable[..., Path]


@pytest.fixture
def make(inputs: dict[str, Artifact], tmp_path: Path) -> Make:
    """Write a report about a model that was pushed, or refused, and give its folder."""

    def report(blessed: bool = True, servable: bool = True, reason: str = "answers as it should") -> Path:
        inputs["model_blessing"].set_int_custom_property("blessed", int(blessed))
        inputs["infra_blessing"].set_int_custom_property("blessed", int(servable))
        inputs["infra_blessing"].set_string_custom_property("reason", reason)
        inputs["pushed_model"].set_int_custom_property("pushed", int(blessed and servable))
        inputs["pushed_model"].set_string_custom_property("pushed_version", "1795437307")
        output = Report()
        output.uri = str(tmp_path / "report")
        Executor().Do(
            {name: [artifact] for name, artifact in inputs.items()},
            {"report": [output]},
            {"model_name": "mnist", "recipe": "fast"},
        )
        return tmp_path / "report"

    return report


@pytest.fixture
def answers(tiny_mnist_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """True labels [N] and the model's probabilities [N, C], computed here."""
    files = idx.find_files(tiny_mnist_dir)
    images, labels = next(idx_pairs.stream(files.test_images, files.test_labels, TINY_TEST, None))
    train = next(idx_pairs.stream(files.train_images, files.train_labels, TINY_TRAIN, None))
    model = Nearest(*train)
    return labels.astype(np.int64), model.pixels(images)[features.PROBABILITIES].numpy()


def test_the_summary_holds_the_model_s_own_figures(
    make: Make, answers: tuple[np.ndarray, np.ndarray]
) -> None:
    labels, probabilities = answers
    summary = json.loads((make() / SUMMARY_FILE).read_text())
    assert summary["accuracy"] == pytest.approx(
        sklearn_metrics.accuracy_score(labels, probabilities.argmax(1))
    )
    assert summary["log_loss"] == pytest.approx(
        -np.log(probabilities[range(len(labels)), labels]).mean(), rel=1e-4
    )
    assert summary["errors"] == (labels != probabilities.argmax(1)).sum() > 0
    recalls = sklearn_metrics.recall_score(labels, probabilities.argmax(1), average=None)
    assert list(summary["class_accuracy"].values()) == pytest.approx(list(recalls))
    assert summary["pushed_version"] == "1795437307"


def test_the_page_needs_nothing_but_itself_and_shows_every_mistake(
    make: Make, answers: tuple[np.ndarray, np.ndarray]
) -> None:
    labels, probabilities = answers
    html = (make() / REPORT_FILE).read_text()
    assert len(html.encode()) < 3_000_000
    assert not re.search(r"https?://|<script|<link|src=|@import", html)
    assert re.findall(r"url\((\w+):", html) == ["data"]
    wrong = np.flatnonzero(labels != probabilities.argmax(1))
    of_label = probabilities[wrong, labels[wrong]]
    expected = wrong[np.argsort(of_label, kind="stable")][:50]
    assert [int(number) for number in re.findall(r"test-images#(\d+)</small>", html)] == expected.tolist()
    assert f"mnist query --test-index {expected[0]}<" in html
    assert "Blessed and pushed" in html
    assert html.count("no anomaly") == 3
    assert "DataGate" not in html


def test_what_the_data_gate_let_pass_is_shown(inputs: dict[str, Artifact], make: Make) -> None:
    file = Path(inputs["data_blessing"].uri, "data_gate.json")
    anomaly = {"name": "test.leakage", "share": 0.02, "text": "4 of 200 images are in <train> too"}
    _written(file, json.dumps({"allowed": [anomaly], "warnings": [], "compared_with": None}))
    html = (make() / REPORT_FILE).read_text()
    assert "<code>test.leakage</code>" in html
    assert "4 of 200 images are in &lt;train&gt; too" in html
    _written(file, json.dumps({"allowed": [], "warnings": [], "compared_with": "0123456789abcdef"}))
    assert "no drift since the data <code>0123456789ab</code>" in (make() / REPORT_FILE).read_text()
    file.unlink()


@pytest.mark.parametrize(
    ("blessed", "servable", "told"),
    [(False, False, "below a gate"), (True, False, "rest: &lt;b&gt; is no tensor")],
)
def test_a_refused_model_has_its_page_too(make: Make, blessed: bool, servable: bool, told: str) -> None:
    html = (make(blessed, servable, "rest: <b> is no tensor") / REPORT_FILE).read_text()
    assert '<h1 class="bad">Refused</h1>' in html
    assert told in html
    assert "1795437307" not in html


def a_chart(title: str = "Accuracy") -> str:
    line = chart.Series("one", [(1, 0.5), (2, 0.9)], 2, whiskers=[(0.4, 0.6), (0.8, 1.0)])
    axis = chart.Axis("epoch", 1, 2, whole=True)
    return str(chart.draw(title, axis, chart.Axis("share", 0, 1, "{:.0%}".format), [line], diagonal=True))


def test_a_chart_has_the_page_s_colours_and_font_alone() -> None:
    svg = a_chart()
    for variable in ("--ink", "--soft", "--rule", "--panel", "--series-2"):
        assert f"var({variable})" in svg
    assert not re.findall(r"(?:fill|stroke): #\w+", svg)
    assert "font-family" not in svg
    assert "<style" not in svg


def test_a_chart_is_a_part_of_a_page_and_no_file() -> None:
    svg = a_chart("Loss & <more>")
    figure = ElementTree.fromstring(svg)
    (drawing,) = figure.findall("svg")
    assert drawing.attrib["aria-label"] == "Loss & <more>"
    assert "width" not in drawing.attrib
    assert "<metadata" not in svg
    texts = {"".join(text.itertext()) for text in drawing.iter("text")}
    assert {"epoch", "share", "1", "2", "0%", "100%"} <= texts
    assert "1.5" not in texts  # there is no such epoch


@pytest.mark.slow
def test_a_chart_is_the_same_each_time_and_two_of_a_page_share_no_id() -> None:
    assert a_chart() == a_chart()
    one, other = (set(re.findall(r'\bid="([^"]+)"', a_chart(title))) for title in ("one", "other"))
    assert one
    assert not one & other


def test_a_value_measured_once_stands_at_the_last_epoch() -> None:
    assert page.by_epoch([0.5], 3) == [(3.0, 0.5)]
    assert page.by_epoch([1.2, 0.4, 0.3], 3) == [(1.0, 1.2), (2.0, 0.4), (3.0, 0.3)]
    loss, accuracy = page.training_curves(HISTORY)
    assert "validation" in loss
    assert "validation" in accuracy
    assert page.training_curves({}) == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine's PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3)
      .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return ["h1", ".aside", "section small", ".plain td", ".mistakes .bad", ".mistakes .good"].map((name) => {
    const element = document.querySelector(name);
    let behind = element;
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    const a = light(getComputedStyle(element).color), b = light(getComputedStyle(behind).backgroundColor);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1180])
def test_the_page_in_a_browser(browser: Any, make: Make, scheme: Any, width: int) -> None:
    view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    view.on("console", lambda message: said.append(message.text))
    view.on("request", lambda request: said.append(request.url) if request.url[:4] == "http" else None)
    view.goto((make() / REPORT_FILE).as_uri())
    assert said == []
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    assert min(view.evaluate(CONTRAST)) >= 4.5
    # The ink of a digit is as dark, or as light, as the text, on the page's own ground.
    shot = view.locator(".mistakes .digit").first.screenshot()
    grey = np.asarray(Image.open(io.BytesIO(shot)).convert("L")).astype(int)
    assert np.ptp(grey) > 150
    assert (np.median(grey) > 128) == (scheme == "light")
    assert view.locator(".mistakes li").count() > 10
    assert view.locator(".chart svg").count() == 3 + len(CORRUPTIONS)
    view.close()


def test_it_prints(browser: Any, make: Make) -> None:
    view = browser.new_page()
    view.goto((make() / REPORT_FILE).as_uri())
    view.emulate_media(media="print", color_scheme="dark")
    assert view.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    pdf = view.pdf()
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type /Page\b", pdf)) <= 12
    view.close()


def test_the_verdict_s_gates_baseline_and_robustness_are_on_the_page(
    make: Make, inputs: dict[str, Artifact]
) -> None:
    judged = verdict.from_json(Path(inputs["evaluation"].uri, verdict.VERDICT_FILE).read_text())
    assert judged.baseline is not None
    html = (make() / REPORT_FILE).read_text()
    assert html.count('<tr class="passed">') + html.count('<tr class="failed">') == len(judged.gates)
    assert "accuracy lost against the baseline" in html
    assert html.count("in production</th>") == 1
    assert page.percent(judged.baseline.class_accuracy[3].value) in html
    for corruption in {part.corruption for part in judged.robustness}:
        assert html.count(f'aria-label="{corruption.capitalize()}"') == 1


def test_the_place_in_an_idx_file_is_known_from_an_example_s_id() -> None:
    assert page.test_index("t10k-images-idx3-ubyte.gz#17") == 17
    assert page.test_index("test/7/picture.png") is None
