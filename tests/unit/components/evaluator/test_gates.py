"""The gates: each one on arrays that fail it and on arrays that pass it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from components.evaluator import gates, tally
from components.evaluator.gates import Thresholds
from components.evaluator.tally import Tally
from components.shared import measures, verdict
from components.shared.measures import Measure
from components.shared.verdict import Gate, Lite, Robustness, Verdict, VerdictError

OPEN = Thresholds(
    accuracy=0.0,
    class_accuracy=0.0,
    class_examples=0,
    calibration_error=1.0,
    accuracy_drop=1.0,
    class_accuracy_drop=1.0,
)
# Class 0: 3 of 4 right; class 1: 1 of 2; class 2: all 4. Overall 8 of 10.
LABELS = [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
SAID = [0, 0, 0, 2, 1, 0, 2, 2, 2, 2]


def answers(
    said: list[int],
    labels: list[int] = LABELS,
    confidence: float = 0.9,
    classes: int = 3,
    in_production: list[int] | None = None,
) -> Tally:
    def probabilities(answered: list[int]) -> np.ndarray:
        made = np.full((len(answered), classes), (1 - confidence) / (classes - 1), np.float32)
        made[np.arange(len(answered)), answered] = confidence
        return made

    other = None if in_production is None else probabilities(in_production)
    return tally.count(np.array(labels), probabilities(said), other)


def failing(thresholds: Thresholds, *more: object, of: Tally | None = None) -> list[tuple[str, str]]:
    judged = gates.judge(thresholds, of or answers(SAID), *more)  # type: ignore[arg-type]
    return [(gate.name, gate.slice_name) for gate in judged if not gate.passed]


def closed(**changes: Any) -> Thresholds:
    return dataclasses.replace(OPEN, **changes)


@pytest.mark.parametrize(
    ("passes", "fails", "slice_names"),
    [
        (closed(accuracy=0.8), closed(accuracy=0.81), ["overall"]),
        (closed(class_accuracy=0.5), closed(class_accuracy=0.75), ["class 1"]),
        (closed(class_accuracy=0.5), closed(class_accuracy=0.76), ["class 0", "class 1"]),
        (closed(class_examples=2), closed(class_examples=3), ["class 1"]),
        # All answers were given with 0.9, and 0.8 of them are right.
        (closed(calibration_error=0.101), closed(calibration_error=0.099), ["overall"]),
    ],
)
def test_a_gate_passes_at_its_threshold_and_fails_beyond(
    passes: Thresholds, fails: Thresholds, slice_names: list[str]
) -> None:
    assert failing(passes) == []
    (name,) = {name for name, _ in failing(fails)}
    assert getattr(fails, name) != getattr(OPEN, name)
    assert [slice_name for _, slice_name in failing(fails)] == slice_names


REPORTED = gates.Reported({"auc": 0.99, "error": 0.1, "nan": float("nan")}, 50)


@pytest.mark.parametrize(
    ("thresholds", "passed"),
    [
        (closed(metrics={"auc": 0.99}), True),
        (closed(metrics={"auc": 0.991}), False),
        (closed(metrics_at_most={"error": 0.1}), True),
        (closed(metrics_at_most={"error": 0.09}), False),
        (closed(metrics={"nan": 0.0}), False),
        (closed(metrics_at_most={"nan": 1.0}), False),
    ],
)
def test_a_metric_of_the_model_function_is_a_gate(thresholds: Thresholds, passed: bool) -> None:
    gate = gates.judge(thresholds, answers(SAID), reported=REPORTED)[-1]
    assert (gate.slice_name, gate.examples, gate.passed) == ("the validation split", 50, passed)
    assert gate.name in ("metrics", "metrics_at_most")
    assert gate.metric in REPORTED.metrics


def test_a_metric_that_is_not_reported_is_no_gate() -> None:
    with pytest.raises(ValueError, match=r"^gates\.metrics\.acu: .* no such metric; there are auc, error"):
        gates.judge(closed(metrics={"acu": 0.9}), answers(SAID), reported=REPORTED)


def test_against_the_baseline_overall_and_by_class() -> None:
    baseline = gates.compare("7", "f" * 64, answers(SAID, in_production=[0, 0, 0, 0, 1, 0, 2, 2, 2, 2]))
    assert baseline.accuracy.value == pytest.approx(0.9)
    assert baseline.accuracy_drop.value == pytest.approx(0.1)
    assert {c: drop.value for c, drop in baseline.class_accuracy_drop.items()} == {0: 0.25, 1: 0, 2: 0}
    assert failing(closed(accuracy_drop=0.1), baseline) == []
    assert failing(closed(accuracy_drop=0.09), baseline) == [("accuracy_drop", "overall")]
    assert failing(closed(class_accuracy_drop=0.25), baseline) == []
    assert failing(closed(class_accuracy_drop=0.24), baseline) == [("class_accuracy_drop", "class 0")]
    # A better one loses nothing, and without a baseline there is no such gate.
    better = gates.compare("7", "f" * 64, answers(SAID, in_production=[2] * 10))
    assert failing(closed(accuracy_drop=0, class_accuracy_drop=0), better) == []
    assert "accuracy_drop" not in {gate.name for gate in gates.judge(OPEN, answers(SAID))}


def test_robustness_is_gated_where_a_threshold_is_set() -> None:
    parts = tuple(
        Robustness(name, severity, Measure(value, 0.0, 1.0, 100))
        for name, values in {"shifted": (0.9, 0.7), "noisy": (0.9, 0.5)}.items()
        for severity, value in enumerate(values, 1)
    )
    assert failing(OPEN, None, parts) == []
    assert "robustness" not in {gate.name for gate in gates.judge(OPEN, answers(SAID), None, parts)}
    assert failing(closed(robustness=0.7), None, parts) == []
    assert failing(closed(robustness=0.75), None, parts) == [("robustness", "noisy")]


def test_a_lite_model_is_judged_as_the_model_is() -> None:
    some, none = Measure(0.75, 0.7, 0.8, 100), Measure(0.05, 0.0, 0.1, 100)
    lite = Lite(some, none, some, 1000, 4000, 0.25)
    judged = closed(accuracy=0.8, accuracy_drop=0.04)
    assert failing(judged, None, (), gates.Reported(), lite) == [
        ("accuracy", "model.tflite"),
        ("accuracy_drop", "model.tflite"),
    ]
    assert failing(closed(accuracy=0.75, accuracy_drop=0.05), None, (), gates.Reported(), lite) == []


def test_a_class_with_too_few_examples_is_told_as_that_alone() -> None:
    judged = gates.judge(closed(class_examples=4, class_accuracy=0.75), answers(SAID))
    of_class_1 = [gate for gate in judged if gate.slice_name == "class 1"]
    assert [(gate.name, gate.value, gate.passed) for gate in of_class_1] == [("class_examples", 2, False)]
    missing = answers([0, 1], [0, 1])  # there are none of class 2
    assert failing(closed(class_examples=1), of=missing) == [("class_examples", "class 2")]
    assert failing(OPEN, of=missing) == []


def drop(before: np.ndarray, after: np.ndarray) -> Measure:
    return gates.drop(int((before & ~after).sum()), int((after & ~before).sum()), len(before))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50))
def test_a_drop_lies_in_its_interval_and_turns_with_the_sides(pairs: list[tuple[bool, bool]]) -> None:
    before, after = np.array(pairs).T
    forth, back = drop(before, after), drop(after, before)
    assert -1 <= forth.low <= forth.value <= forth.high <= 1
    assert (forth.value, forth.low, forth.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        before, after = generator.random((2, 500)) < np.array([[0.95], [0.93]])
        measure = drop(before, after)
        covered += measure.low <= 0.02 <= measure.high
    assert binomtest(covered, 400, 0.95).pvalue > 0.001


def test_an_interval_of_the_calibration_error_is_that_of_the_bootstrap() -> None:
    """Resampling the examples themselves, which the Evaluator does not keep, gives the same interval."""
    generator = np.random.default_rng(3)
    confidence = generator.uniform(0.3, 1, 5000).astype(np.float32)
    right = generator.random(5000) < confidence - 0.05
    found = gates.calibration(measures.reliability_sums(confidence, right))
    errors = []
    for _ in range(1000):
        chosen = generator.integers(5000, size=5000)
        sums = measures.reliability_sums(confidence[chosen], right[chosen])
        errors.append(measures.calibration_error(measures.reliability(sums)))
    low, high = np.quantile(errors, (0.025, 0.975))
    assert (found.low, found.high) == pytest.approx((min(low, found.value), high), abs=0.002)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=40)
)
def test_a_tally_is_the_same_however_the_examples_are_spread(examples: list[tuple[int, int, int]]) -> None:
    labels, said, other = (list(column) for column in zip(*examples, strict=True))
    whole = answers(said, labels, in_production=other)
    cut = len(labels) // 2
    parts = [
        answers(said[part], labels[part], in_production=other[part])
        for part in (slice(cut), slice(cut, None))
    ]
    joined = parts[1] + parts[0]
    assert joined.paired is not None
    assert whole.paired is not None
    assert joined.examples == len(labels)
    np.testing.assert_array_equal(joined.confusion, whole.confusion)
    np.testing.assert_array_equal(joined.paired.lost, whole.paired.lost)
    np.testing.assert_array_equal(joined.paired.won, whole.paired.won)
    np.testing.assert_allclose(joined.reliability, whole.reliability, rtol=1e-12)
    assert joined.log_loss == pytest.approx(whole.log_loss, rel=1e-12)
    for one, two in zip(gates.judge(OPEN, joined), gates.judge(OPEN, whole), strict=True):
        assert one.value == pytest.approx(two.value, abs=1e-6)
        if one.interval and two.interval:
            assert one.interval == pytest.approx(two.interval, abs=1e-6)


def test_calibration_sees_honest_and_boastful_probabilities() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(3, size=4000)
    right = generator.random(4000) < 0.8
    said = np.where(right, labels, (labels + 1) % 3).tolist()
    honest = gates.calibration(answers(said, labels.tolist(), confidence=0.8).reliability)
    boastful = gates.calibration(answers(said, labels.tolist(), confidence=0.99).reliability)
    assert honest.value < 0.02
    assert boastful.value == pytest.approx(0.19, abs=0.02)
    assert boastful.low <= boastful.value <= boastful.high
    assert boastful.high - boastful.low == pytest.approx(4 * np.sqrt(0.16 / 4000), rel=0.2)


@pytest.fixture
def judged() -> Verdict:
    candidate = answers(SAID, in_production=[2] * 10)
    baseline = gates.compare("7", "f" * 64, candidate)
    return Verdict(
        model="0" * 64,
        split="test",
        accuracy=gates.overall_accuracy(candidate.confusion),
        class_accuracy=gates.class_accuracy(candidate.confusion),
        calibration_error=gates.calibration(candidate.reliability),
        log_loss=candidate.log_loss,
        confusion=candidate.confusion.tolist(),
        reliability=measures.reliability(candidate.reliability),
        gates=gates.judge(closed(accuracy=0.9), candidate, baseline),
        baseline=baseline,
        robustness=(Robustness("noisy", 1, Measure(0.5, 0.4, 0.6, 10)),),
    )


def test_gates_name_classes_and_pass_over_those_that_no_split_has() -> None:
    of = answers([0, 0, 2, 2], [0, 0, 2, 2])
    known = gates.Classes(("cat", "dog", "fox"), frozenset({1}))
    found = gates.judge(closed(class_accuracy=0.9, class_examples=2), of, classes=known)
    assert {gate.slice_name for gate in found if gate.name.startswith("class")} == {
        "class cat",
        "class fox",
    }
    assert all(gate.passed for gate in found)
    (refused,) = [g for g in gates.judge(closed(class_examples=2), of) if not g.passed]
    assert refused.slice_name == "class 1"


def test_a_verdict_comes_back_as_it_was(judged: Verdict) -> None:
    assert verdict.from_json(judged.to_json()) == judged
    measure = Measure(0.5, 0.4, 0.6, 10)
    for_devices = dataclasses.replace(judged, lite=Lite(measure, measure, measure, 1000, 4000, 0.25))
    assert verdict.from_json(for_devices.to_json()) == for_devices
    alone = dataclasses.replace(judged, baseline=None, no_baseline="none", gates=(), robustness=())
    assert verdict.from_json(alone.to_json()) == alone
    assert not judged.blessed
    assert alone.blessed
    assert [gate.name for gate in judged.failed] == ["accuracy"]
    assert judged.weakest_class == 1


def test_a_verdict_that_contradicts_its_gates_is_none(judged: Verdict) -> None:
    with pytest.raises(VerdictError, match="its gates say otherwise"):
        verdict.from_json(judged.to_json().replace('"blessed": false', '"blessed": true'))
    with pytest.raises(VerdictError, match="another format"):
        verdict.from_json(judged.to_json().replace('"format": 3', '"format": 4'))


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_anything_else_is_no_verdict(content: object) -> None:
    with pytest.raises(VerdictError):
        verdict.from_json(json.dumps(content))


def test_a_gate_tells_its_numbers() -> None:
    (gate, *_) = gates.judge(closed(accuracy=0.9), answers(SAID))
    assert gate == Gate("accuracy", "overall", "accuracy", 0.8, "at least", 0.9, False, gate.interval, 10)
    assert gate.interval == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson's, for 8 of 10
