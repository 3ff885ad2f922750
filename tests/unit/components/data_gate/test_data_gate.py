"""DataGate: lets real data through, and stops each kind of damaged data under the right name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.artifacts import DataBlessing
from components.data_gate import checks, schema
from components.data_gate.executor import DataAnomaliesError, Executor
from components.data_gate.schema import ANOMALIES_FILE
from components.image_example_gen.sources import idx
from components.shared import agreement, distance, image_facts
from components.shared.dataset_facts import FACTS_FILE, DatasetFacts, FactsError
from components.shared.names import DATA_GATE_FILE
from pipeline.config import DataGateConfig
from pipeline.schema import schema_text
from tests.unit.components import digits as digits_module
from tests.unit.components.digits import facts_of

SCHEMA = text_format.Parse(schema_text(num_classes=10), schema_pb2.Schema())
SPLITS = ("train", "validation", "test")

Split = tuple[np.ndarray, np.ndarray]  # uint8 [n, 28, 28] and uint8 [n]
Data = dict[str, Split]


@pytest.fixture(scope="module")
def digits(mnist_dir: Path) -> Data:
    """3,000 / 300 / 1,000 real digits, cut as ImageExampleGen cuts: at random."""
    images = next(idx.read_images(mnist_dir / "train-images-idx3-ubyte", 3300))
    labels = next(idx.read_labels(mnist_dir / "train-labels-idx1-ubyte", 3300))
    order = np.random.default_rng(1).permutation(3300)
    test_images = next(idx.read_images(mnist_dir / "t10k-images-idx3-ubyte", 1000))
    test_labels = next(idx.read_labels(mnist_dir / "t10k-labels-idx1-ubyte", 1000))
    return {
        "train": (images[order[:3000]], labels[order[:3000]]),
        "validation": (images[order[3000:]], labels[order[3000:]]),
        "test": (test_images, test_labels),
    }


@pytest.fixture(scope="module")
def clean(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> DatasetFacts:
    return look_at(digits, tmp_path_factory.mktemp("facts") / "clean")


def write_examples(data: Data, folder: Path) -> standard_artifacts.Examples:
    """An Examples artifact as ImageExampleGen leaves it."""
    examples = digits_module.write_examples(folder, data)
    examples.set_string_custom_property("fingerprint", f"of {folder.name}")
    examples.set_int_custom_property("num_classes", 10)
    return examples


def look_at(data: Data, folder: Path) -> DatasetFacts:
    write_examples(data, folder)
    folders = {split: str(folder / f"Split-{split}") for split in data}
    return facts_of(folders, (28, 28), 10, "mnist", f"of {folder.name}")


def run_gate(
    folder: Path,
    data: Data,
    anomalies: Mapping[str, anomalies_pb2.Anomalies] | None = None,
    previous: DatasetFacts | None = None,
    **settings: object,
) -> DataBlessing:
    """The gate's output for these data, and anomalies as ExampleValidator writes them."""
    found = standard_artifacts.ExampleAnomalies()
    found.uri, found.split_names = str(folder / "anomalies"), json.dumps(list(data))
    for split in data:
        target = folder / "anomalies" / f"Split-{split}"
        target.mkdir(parents=True)
        proto = (anomalies or {}).get(split, anomalies_pb2.Anomalies())
        (target / ANOMALIES_FILE).write_bytes(proto.SerializeToString())
    inputs = {"examples": [write_examples(data, folder / "examples")], "anomalies": [found]}
    if previous:
        given_before = DataBlessing()
        given_before.uri = str(folder / "previous")
        Path(given_before.uri).mkdir()
        Path(given_before.uri, FACTS_FILE).write_text(previous.to_json())
        inputs["previous"] = [given_before]
    config = DataGateConfig.model_validate(settings)
    properties = config.model_dump(exclude={"drift", "previous", "previous_fingerprint"})
    blessing = DataBlessing()
    blessing.uri = str(folder / "blessing")
    Executor().Do(
        inputs,
        {"blessing": [blessing]},
        {**properties, "allow": ",".join(config.allow), "dataset": "mnist"},
    )
    return blessing


def thresholds() -> checks.Thresholds:
    config = DataGateConfig()
    return checks.Thresholds(
        config.max_label_distance,
        config.max_image_distance,
        config.max_agreement_lost,
        config.max_leakage,
        config.max_imbalance,
    )


def both(data: Data, damage: Callable[[Split], Split]) -> Data:
    return {split: damage(content) for split, content in data.items()}


def of_file(data: Data, file: str, damage: Callable[[Split], Split]) -> Data:
    """Damage in one pair of files: the training files are train and validation."""
    damaged = {"t10k": ("test",), "train": ("train", "validation")}[file]
    return {split: damage(content) if split in damaged else content for split, content in data.items()}


def without_class_3(split: Split) -> Split:
    keep = split[1] != 3
    return split[0][keep], split[1][keep]


def shuffled(split: Split) -> Split:
    return split[0], np.random.default_rng(0).permutation(split[1])


def inverted(split: Split) -> Split:
    return 255 - split[0], split[1]


def shifted(split: Split) -> Split:
    return np.roll(split[0], 2, axis=2), split[1]


def half_zeroed(split: Split) -> Split:
    keep = np.random.default_rng(0).random(split[0].shape[1:]) < 0.5
    return split[0] * keep, split[1]


def class_7_ten_times(split: Split) -> Split:
    times = np.where(split[1] == 7, 10, 1)
    return np.repeat(split[0], times, axis=0), np.repeat(split[1], times)


def leaked(data: Data) -> Data:
    images, labels = (a.copy() for a in data["test"])
    images[:20], labels[:20] = data["train"][0][:20], data["train"][1][:20]
    return {**data, "test": (images, labels)}


DAMAGE: dict[str, tuple[Callable[[Data], Data], str]] = {
    "class missing in test": (lambda d: of_file(d, "t10k", without_class_3), "test.missing_class"),
    "class missing in training": (lambda d: of_file(d, "train", without_class_3), "train.missing_class"),
    "labels shuffled in test": (lambda d: of_file(d, "t10k", shuffled), "test.agreement"),
    "labels shuffled in training": (lambda d: of_file(d, "train", shuffled), "train.agreement"),
    "images inverted in test": (lambda d: of_file(d, "t10k", inverted), "test.skew.mean_intensity"),
    "images inverted in training": (lambda d: of_file(d, "train", inverted), "test.skew.ink_fraction"),
    "images shifted in test": (lambda d: of_file(d, "t10k", shifted), "test.skew.centre_column"),
    "half of the pixels zeroed": (lambda d: of_file(d, "t10k", half_zeroed), "test.skew.mean_intensity"),
    "test images in training": (leaked, "test.leakage"),
    "one class ten times": (lambda d: both(d, class_7_ten_times), "train.imbalance"),
    "one class ten times in test": (lambda d: of_file(d, "t10k", class_7_ten_times), "test.skew.labels"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_data_are_stopped_and_named(kind: str, digits: Data, tmp_path: Path) -> None:
    damage, name = DAMAGE[kind]
    found = checks.find(look_at(damage(digits), tmp_path), None, thresholds())
    assert name in [anomaly.name for anomaly in found]
    assert all(0 < anomaly.share <= 1 for anomaly in found)


DRIFT: dict[str, tuple[Callable[[Data], Data], str]] = {
    "labels shuffled in all files": (lambda d: both(d, shuffled), "train.drift.agreement"),
    "all images inverted": (lambda d: both(d, inverted), "train.drift.mean_intensity"),
    "all images shifted": (lambda d: both(d, shifted), "test.drift.centre_column"),
    "all images half zeroed": (lambda d: both(d, half_zeroed), "train.drift.mean_intensity"),
    "a class gone": (lambda d: both(d, without_class_3), "train.drift.labels"),
    "a class ten times": (lambda d: both(d, class_7_ten_times), "train.drift.labels"),
}


@pytest.mark.parametrize("kind", DRIFT)
def test_what_no_split_shows_alone_is_drift(
    kind: str, digits: Data, clean: DatasetFacts, tmp_path: Path
) -> None:
    damage, name = DRIFT[kind]
    now = look_at(damage(digits), tmp_path)
    assert name in [anomaly.name for anomaly in checks.find(now, clean, thresholds())]
    assert name not in [anomaly.name for anomaly in checks.find(now, None, thresholds())]


def test_real_digits_pass_and_so_do_other_ones_after_them(
    clean: DatasetFacts, mnist_dir: Path, tmp_path: Path
) -> None:
    assert checks.find(clean, None, thresholds()) == []
    images = next(idx.read_images(mnist_dir / "train-images-idx3-ubyte", 8000))[4000:]
    labels = next(idx.read_labels(mnist_dir / "train-labels-idx1-ubyte", 8000))[4000:]
    cuts = {"train": slice(3000), "validation": slice(3000, 3300), "test": slice(3300, None)}
    other = look_at({split: (images[cut], labels[cut]) for split, cut in cuts.items()}, tmp_path)
    assert checks.find(other, clean, thresholds()) == []


@pytest.mark.parametrize("seed", range(5))
def test_small_samples_of_real_digits_pass(seed: int, digits: Data, tmp_path: Path) -> None:
    take = np.random.default_rng(seed)
    small = {}
    for split, count in (("train", 550), ("validation", 50), ("test", 200)):
        images, labels = digits[split]
        chosen = take.choice(len(labels), min(count, len(labels)), replace=False)
        small[split] = (images[chosen], labels[chosen])
    assert checks.find(look_at(small, tmp_path), None, thresholds()) == []


def test_the_gate_blesses_and_leaves_the_facts(digits: Data, clean: DatasetFacts, tmp_path: Path) -> None:
    blessing = run_gate(tmp_path, digits, previous=clean)
    assert blessing.get_int_custom_property("blessed") == 1
    left = DatasetFacts.from_json(Path(blessing.uri, FACTS_FILE).read_text())
    assert left.splits == clean.splits
    assert left.fingerprint == "of examples"
    assert [left.splits[split].examples for split in SPLITS] == [3000, 300, 1000]
    assert left.splits["test"].labels == tuple(np.bincount(digits["test"][1]))
    report = json.loads(Path(blessing.uri, DATA_GATE_FILE).read_text())
    assert report["compared_with"] == "of clean"
    assert report["allowed"] == report["warnings"] == []


def test_the_gate_names_each_anomaly_with_its_share(digits: Data, tmp_path: Path) -> None:
    with pytest.raises(DataAnomaliesError, match=r"test\.leakage \(2\.0%\): 20 of 1,000 images") as caught:
        run_gate(tmp_path, leaked(digits))
    assert str(caught.value).endswith("let it pass with --set data_gate.allow=test.leakage")
    assert not any((tmp_path / "blessing").iterdir())


def test_an_allowed_anomaly_passes_and_is_recorded(digits: Data, tmp_path: Path) -> None:
    blessing = run_gate(tmp_path, leaked(digits), allow="test.leak*")
    assert blessing.get_string_custom_property("allowed") == "test.leakage"
    assert blessing.get_int_custom_property("leaked") == 20
    (recorded,) = json.loads(Path(blessing.uri, DATA_GATE_FILE).read_text())["allowed"]
    assert recorded["name"] == "test.leakage"
    assert recorded["share"] == 0.02


def test_one_name_lets_nothing_else_pass(digits: Data, tmp_path: Path) -> None:
    with pytest.raises(DataAnomaliesError) as caught:
        run_gate(
            tmp_path, of_file(leaked(digits), "t10k", without_class_3), allow=("test.leakage", "*.skew.*")
        )
    assert "test.missing_class" in str(caught.value)
    assert "test.leakage (" not in str(caught.value)
    # Who follows the hint still allows what was allowed before.
    assert "--set 'data_gate.allow=test.leakage,*.skew.*,test.missing_class" in str(caught.value)


def of_schema(labels: list[int], severity: int | None = None) -> anomalies_pb2.Anomalies:
    """What TFDV, so ExampleValidator, finds in examples with these labels."""
    import pandas as pd

    frame = pd.DataFrame({"label": labels, "image": [b"x"] * len(labels)})
    options = tfdv.StatsOptions(schema=SCHEMA)
    found = tfdv.validate_statistics(tfdv.generate_statistics_from_dataframe(frame, options), SCHEMA)
    for info in found.anomaly_info.values():
        info.severity = info.severity if severity is None else severity
    return found


@pytest.mark.parametrize("wrong", [12, 255], ids=["just beyond", "far beyond"])
def test_what_example_validator_finds_stops_the_run(wrong: int, digits: Data, tmp_path: Path) -> None:
    labels = digits["test"][1].copy()
    labels[:50] = wrong
    data = {**digits, "test": (digits["test"][0], labels)}
    with pytest.raises(DataAnomaliesError, match=r"test\.schema\.label \(5\.0%\): ") as caught:
        run_gate(tmp_path, data, {"test": of_schema(labels.tolist())})
    assert "train." not in str(caught.value)


def test_a_warning_stops_only_who_asks_for_it(digits: Data, tmp_path: Path) -> None:
    warning = {"test": of_schema([0, 12], anomalies_pb2.AnomalyInfo.WARNING)}
    blessing = run_gate(tmp_path / "lenient", digits, warning)
    (recorded,) = json.loads(Path(blessing.uri, DATA_GATE_FILE).read_text())["warnings"]
    assert recorded["name"] == "test.schema.label"
    with pytest.raises(DataAnomaliesError, match=r"test\.schema\.label"):
        run_gate(tmp_path / "strict", digits, warning, stop_at="warning")


def test_facts_do_not_depend_on_how_examples_are_spread_over_files(
    digits: Data, clean: DatasetFacts, tmp_path: Path
) -> None:
    """As on an engine: other files, another order."""
    spread = digits_module.write_examples(tmp_path / "spread", digits, files=3)
    folders = {split: artifact_utils.get_split_uri([spread], split) for split in digits}
    assert facts_of(folders, (28, 28), 10, clean.dataset, clean.fingerprint) == clean


def test_an_image_that_is_in_two_splits_is_found_wherever_it_lies(digits: Data, tmp_path: Path) -> None:
    images, labels = digits["test"]
    both = {"train": digits["train"], "test": (images.copy(), labels)}
    both["test"][0][[3, 500, 999]] = digits["train"][0][[0, 1500, 2999]]
    spread = digits_module.write_examples(tmp_path / "spread", both, files=4)
    folders = {split: artifact_utils.get_split_uri([spread], split) for split in both}
    assert facts_of(folders, (28, 28), 10).leaked == {"test": 3}


def test_anomalies_without_a_feature_concern_all_examples(clean: DatasetFacts) -> None:
    ((severity, found),) = schema.find(
        "test", anomalies_pb2.Anomalies(data_missing=True), clean.splits["test"]
    )
    assert (severity, found.name, found.share) == ("error", "test.schema.dataset", 1.0)
    assert found.text == "there are no examples"


@pytest.mark.slow
def test_examples_that_lack_a_feature_are_counted(tmp_path: Path) -> None:
    import tensorflow as tf

    def bytes_feature(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    image = bytes_feature(bytes(6))
    examples = [{"image": image, "label": label}, {"image": bytes_feature(b"x"), "label": label}]
    examples += [{"image": image}, {"label": label}]
    (tmp_path / "records").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "records" / "data")) as writer:
        for each in examples:
            features = tf.train.Features(feature=each)
            writer.write(tf.train.Example(features=features).SerializeToString())
    found = facts_of({"train": str(tmp_path / "records")}, (2, 3), 2).splits["train"]
    assert (found.examples, found.bad_images, found.bad_labels, found.labels) == (4, 2, 1, (0, 3))
    assert sum(found.images[image_facts.INK_FRACTION]) == 2


def test_the_facts_of_an_image_are_what_they_say() -> None:
    images = np.zeros((3, 4, 8), np.uint8)
    images[1] = 255
    images[2, 3, 0] = 200
    found = image_facts.image_facts(images)
    assert found[image_facts.MEAN_INTENSITY] == pytest.approx([0, 1, 200 / (255 * 32)])
    assert found[image_facts.INK_FRACTION] == pytest.approx([0, 1, 1 / 32])
    assert found[image_facts.CENTRE_ROW] == pytest.approx([0.5, 0.5, 3.5 / 4])
    assert found[image_facts.CENTRE_COLUMN] == pytest.approx([0.5, 0.5, 0.5 / 8])


def counts() -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 1000), min_size=2, max_size=12).filter(any)


def test_photos_have_channels_and_sharpness() -> None:
    flat = np.full((12, 12, 3), (255, 51, 0), np.uint8)
    lines = np.zeros((12, 12, 3), np.uint8)
    lines[::2] = 60
    found = image_facts.image_facts(np.stack([flat, lines]))
    assert tuple(found) == image_facts.fact_names(colour=True)
    np.testing.assert_allclose([found[name][0] for name in image_facts.CHANNEL_MEANS], [1, 0.2, 0])
    # Half of the steps are of 60 levels, the others of none; a quarter of 255 is 1.
    np.testing.assert_allclose(found[image_facts.SHARPNESS], [0, 30 / 63.75], rtol=1e-5)


def test_a_class_that_no_split_has_and_pictures_left_out_are_told_and_stop_nothing(
    digits: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = {
        split: (images[labels != 3], labels[labels != 3]) for split, (images, labels) in digits.items()
    }
    write = write_examples

    def with_properties(data: Data, folder: Path) -> standard_artifacts.Examples:
        examples = write(data, folder)
        examples.set_string_custom_property("absent_classes", "[3]")
        examples.set_string_custom_property("class_names", json.dumps([f"digit {n}" for n in range(10)]))
        (folder / "skipped.json").write_text(json.dumps({"train/3.png": "broken"}))
        return examples

    monkeypatch.setattr(f"{__name__}.write_examples", with_properties)
    blessing = run_gate(tmp_path, without)
    report = json.loads(Path(blessing.uri, DATA_GATE_FILE).read_text())
    assert report["absent_classes"] == ["digit 3"]
    assert report["skipped"] == {"train/3.png": "broken"}
    assert report["examples"] == {split: len(labels) for split, (_, labels) in without.items()}
    assert report["allowed"] == []


@pytest.mark.slow
@given(counts(), counts())
def test_distances_are_distances(first: list[int], second: list[int]) -> None:
    labels, worst = distance.of_labels(first, second)
    assert 0 <= labels.value <= 1
    assert 0 <= worst < max(len(first), len(second))
    assert distance.of_labels(second, first)[0].value == pytest.approx(labels.value)
    assert distance.of_labels(first, first)[0].value == 0
    if len(first) == len(second):
        assert 0 <= distance.of_histograms(first, second).value <= 1 + 1e-9


def test_samples_of_one_source_stay_within_the_noise() -> None:
    draw = np.random.default_rng(3)
    even = np.full(10, 0.1)
    over = 0
    for _ in range(400):
        first, second = draw.multinomial(500, even), draw.multinomial(200, even)
        over += distance.of_histograms(first, second).excess > 0
        over += distance.of_labels(first, second)[0].excess > 0
    assert over <= 4


def test_absent_classes_are_nobody_s_nearest() -> None:
    images = np.array([[0.0, 0.0], [1.0, 1.0]], np.float32)
    means = agreement.class_means(images, np.array([0, 2]))
    assert agreement.share_right(means, images, np.array([0, 2])) == 1
    assert agreement.share_right(means, images, np.array([0, 1])) == 0.5


def mutilated() -> Iterator[str]:
    yield from ("", "[]", "null", "{}", '{"splits": 3}', '{"splits": {"train": {}}}', "\x00")


@pytest.mark.parametrize("text", mutilated())
def test_what_are_no_facts_is_refused(text: str) -> None:
    with pytest.raises(FactsError, match="not the facts of a data set"):
        DatasetFacts.from_json(text)


def test_facts_are_the_same_bytes_each_time(clean: DatasetFacts) -> None:
    assert DatasetFacts.from_json(clean.to_json()) == clean
    assert DatasetFacts.from_json(clean.to_json()).to_json() == clean.to_json()
