"""Exact sums, stable logarithms, and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import log_softmax as scipy_log_softmax
from sklearn.metrics import roc_auc_score

from tgeokd_ray.errors import DataError, IntegrityError
from tgeokd_ray.metrics import Evaluation, bootstrap_interval, paired_difference
from tgeokd_ray.metrics.exact_sums import ExactSums
from tgeokd_ray.metrics.intervals import student_t_quantile
from tgeokd_ray.metrics.probabilities import log_odds, log_softmax


@given(st.lists(st.floats(0, 1e300), max_size=40), st.integers(0, 40))
def test_exact_sums_have_the_digits_of_fsum(values: list[float], cut: int) -> None:
    first, second = ExactSums(2), ExactSums(2)
    first.add(np.array(values[:cut]), 1)
    second.add(np.array(values[cut:]), np.ones(len(values[cut:]), int))
    assert first.merge(second).totals().tolist() == [0, math.fsum(values)]


def test_exact_sums_reach_both_ends_of_float64() -> None:
    sums = ExactSums(2)
    sums.add(np.array([5e-324, 1e308, 5e-324]), np.array([0, 1, 0]))
    assert sums.totals().tolist() == [1e-323, 1e308]


@given(st.integers(0, 1000), st.integers(2, 6), st.sampled_from([1e-3, 1.0, 50.0, 1e30]))
def test_log_softmax_and_log_odds_agree_with_their_definitions(seed: int, classes: int, scale: float) -> None:
    logits = (np.random.default_rng(seed).normal(size=(20, classes)) * scale).astype(np.float32)
    expected = scipy_log_softmax(logits.astype(float), axis=1)
    assert np.allclose(log_softmax(logits), expected, rtol=1e-12, atol=1e-12)
    odds = log_odds(logits)
    for column, c in enumerate([1] if classes == 2 else range(classes)):
        others = np.delete(logits.astype(float), c, axis=1)
        expected = logits[:, c] - np.logaddexp.reduce(others, axis=1)
        assert np.allclose(odds[:, column], expected, rtol=1e-12, atol=1e-12)


def test_log_odds_of_tied_classes() -> None:
    assert np.allclose(log_odds(np.zeros((1, 4), np.float32)), -math.log(3))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("metric", ["auc", "nll", "accuracy"])
def test_the_bootstrap_agrees_with_drawing_rows_one_by_one(metric: str, classes: int) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, classes, 400)
    logits = random.normal(size=(400, classes)).astype(np.float32)
    logits[np.arange(400), labels] += 1
    low, high = bootstrap_interval(logits, labels, metric, replicates=3000, seed=1)
    figures = []
    for _ in range(600):
        drawn = random.integers(0, 400, 400)
        probabilities = np.exp(log_softmax(logits[drawn]))
        if metric == "auc":
            score = probabilities[:, 1] if classes == 2 else probabilities
            figures.append(roc_auc_score(labels[drawn], score, multi_class="ovr"))
        elif metric == "nll":
            figures.append(-np.log(probabilities[np.arange(400), labels[drawn]]).mean())
        else:
            figures.append((probabilities.argmax(1) == labels[drawn]).mean())
    expected = np.quantile(figures, [0.025, 0.975])
    assert np.abs(np.array([low, high]) - expected).max() < 0.15 * (expected[1] - expected[0])
    summary = Evaluation(classes)
    summary.add(logits, labels)
    assert low < summary.results()[metric] < high


def test_the_bootstrap_repeats_by_seed_and_widens_with_its_level() -> None:
    random = np.random.default_rng(2)
    logits, labels = random.normal(size=(300, 2)), random.integers(0, 2, 300)
    first = bootstrap_interval(logits, labels, "auc", seed=3)
    assert first == bootstrap_interval(logits, labels, "auc", seed=3)
    assert first != bootstrap_interval(logits, labels, "auc", seed=4)
    wide = bootstrap_interval(logits, labels, "auc", seed=3, level=0.99)
    assert wide[0] < first[0] < first[1] < wide[1]


def test_the_bootstrap_stays_within_the_range_of_its_metric() -> None:
    logits = np.array([[1.0, 0], [0, 1]] * 20, np.float32)
    labels = np.array([0, 1] * 20)
    assert bootstrap_interval(logits, labels, "auc", seed=0) == (1.0, 1.0)
    assert bootstrap_interval(logits, labels, "accuracy", seed=0) == (1.0, 1.0)
    labels[0] = 1
    assert bootstrap_interval(logits, labels, "auc", seed=0)[1] <= 1.0


@pytest.mark.parametrize("metric", ["auc", "nll", "accuracy"])
def test_a_merged_evaluation_gives_the_interval_of_its_rows_in_any_order(metric: str) -> None:
    random = np.random.default_rng(4)
    logits, labels = random.normal(size=(300, 3)).astype(np.float32), random.integers(0, 3, 300)
    parts = [Evaluation(3) for _ in range(3)]
    for part, rows in zip(parts, np.array_split(random.permutation(300), 3), strict=True):
        part.add(logits[rows], labels[rows])
    merged = parts[2].merge(parts[0]).merge(parts[1])
    assert merged.exact
    assert merged.interval(metric, seed=5) == bootstrap_interval(logits, labels, metric, seed=5)


def test_an_evaluation_without_its_rows_gives_no_interval() -> None:
    folded, weighted = Evaluation(2, exact_rows=1), Evaluation(2)
    folded.add(np.zeros((2, 2)), [0, 1])
    weighted.add(np.zeros((2, 2)), [0, 1], [1.0, 2.0])
    assert not folded.exact
    for summary in (folded, weighted):
        with pytest.raises(ValueError, match="every row"):
            summary.interval("auc", seed=0)


def test_the_bootstrap_of_an_undefined_metric_is_none() -> None:
    logits = np.zeros((3, 2), np.float32)
    assert bootstrap_interval(logits, [1, 1, 1], "auc", seed=0) is None
    assert bootstrap_interval(logits[:0], np.zeros(0, int), "nll", seed=0) is None


def test_the_bootstrap_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="auc, nll, accuracy"):
        bootstrap_interval(np.zeros((2, 2)), [0, 1], "f1", seed=0)
    with pytest.raises(IntegrityError):
        bootstrap_interval([[0.0, np.nan]], [0], "nll", seed=0)
    with pytest.raises(DataError):
        bootstrap_interval(np.zeros((1, 2)), [2], "nll", seed=0)


@given(st.integers(1, 200), st.sampled_from([0.75, 0.9, 0.95, 0.975, 0.995, 0.9995]))
def test_student_t_quantiles_agree_with_scipy(degrees: int, probability: float) -> None:
    assert student_t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-9)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=30), st.sampled_from([0.9, 0.95]))
def test_paired_differences_agree_with_scipy(pairs: list[tuple[float, float]], level: float) -> None:
    a, b = zip(*pairs, strict=True)
    differences = np.subtract(a, b)
    mean, low, high = paired_difference(a, b, level)
    half = stats.sem(differences) * stats.t.ppf((1 + level) / 2, len(pairs) - 1)
    assert (mean, low, high) == pytest.approx((differences.mean(), mean - half, mean + half), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([1.0, math.nan], [0.0, 0.0])])
def test_paired_differences_refuse_what_has_no_interval(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more pairs"):
        paired_difference(a, b)
