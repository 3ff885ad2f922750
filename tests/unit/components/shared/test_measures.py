"""Figures against other libraries' own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from components.shared import measures


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_s_interval_is_scipy_s(share: tuple[int, int]) -> None:
    right, count = share
    expected = binomtest(right, count).proportion_ci(method="wilson")
    found = measures.wilson(right, count)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.low <= found.value <= found.high


def test_no_example_says_nothing_about_a_share() -> None:
    found = measures.wilson(0, 0)
    assert np.isnan(found.value)
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_confusion_is_scikit_learn_s(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    found = measures.confusion(labels, predicted, 5)
    assert found.tolist() == sklearn_metrics.confusion_matrix(labels, predicted, labels=range(5)).tolist()


def test_reliability_is_scikit_learn_s() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.random(500, np.float32)
    right = generator.random(500) < confidence**2
    bins = measures.reliability(measures.reliability_sums(confidence, right))
    accuracies, confidences = calibration_curve(right, confidence, n_bins=10)
    assert [part.accuracy.value for part in bins] == pytest.approx(list(accuracies))
    assert [part.confidence for part in bins] == pytest.approx(list(confidences))
    counts = [part.accuracy.examples for part in bins]
    expected = np.average(np.abs(np.subtract(accuracies, confidences)), weights=counts)
    assert measures.calibration_error(bins) == pytest.approx(expected)
    assert measures.calibration_error(bins) > 0.1  # such a model is overconfident
