"""Tests of differences and their corrections, against scipy and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tgeokd_ray.metrics import paired_difference
from tgeokd_ray.metrics.intervals import student_t_quantile
from tgeokd_ray.metrics.significance import holm, paired_test, simultaneous, student_t_tails


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 19, 99, 4999])
@pytest.mark.parametrize("statistic", [0.0, 0.01, 0.7, -1.0, 2.3, 12.0, -77.0, 1e4, 1e8])
def test_the_tails_are_those_of_scipy(statistic: float, degrees: int) -> None:
    expected = 2 * stats.t.sf(abs(statistic), degrees)
    assert student_t_tails(statistic, degrees) == pytest.approx(expected, rel=2e-11, abs=1e-300)


def test_the_tails_of_one_and_of_two_degrees_are_closed_forms() -> None:
    for t in (1e-9, 0.3, 1.0, 50.0, 1e6):
        assert student_t_tails(t, 1) == pytest.approx(2 / math.pi * math.atan(1 / t), rel=1e-12)
        root = math.sqrt(2 + t * t)
        assert student_t_tails(t, 2) == pytest.approx(2 / (root * (root + t)), rel=1e-12)


@pytest.mark.parametrize("degrees", [1, 2, 4, 9])
@pytest.mark.parametrize("comparisons", [1, 7, 300])
def test_quantiles_far_out_are_those_of_scipy(degrees: int, comparisons: int) -> None:
    probability = 1 - 0.05 / (2 * comparisons)
    assert student_t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-8)
    low, high = simultaneous(0.5, 0.1, degrees, comparisons)
    assert student_t_tails((high - 0.5) / 0.1, degrees) == pytest.approx(0.05 / comparisons, rel=1e-8)
    assert 0.5 - low == pytest.approx(high - 0.5)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=12))
def test_a_paired_test_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = map(list, zip(*pairs, strict=True))
    error, p = paired_test(ours, theirs)
    spread = np.std(np.subtract(ours, theirs), ddof=1)
    if spread < 1e-6:  # rounding decides what scipy says of differences that are all the same
        return
    assert p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, rel=1e-6)
    assert error == pytest.approx(stats.sem(np.subtract(ours, theirs)), rel=1e-9)
    mean, low, high = paired_difference(ours, theirs)
    assert simultaneous(mean, error, len(pairs) - 1, 1) == pytest.approx((low, high))
    assert (p < 0.05) == (low > 0 or high < 0) or p == pytest.approx(0.05, rel=1e-6)


def test_differences_that_are_all_the_same() -> None:
    assert paired_test([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) == (0.0, 1.0)
    assert paired_test([2.0, 3.0], [1.0, 2.0]) == (0.0, 0.0)
    for wrong in (([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([1.0, math.nan], [1.0, 2.0])):
        with pytest.raises(ValueError, match="two or more pairs"):
            paired_test(*wrong)


def test_holm_by_hand() -> None:
    """.01 x 4; .02 x 3; .03 x 2; .04, which can not be below the one before it."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.2]) == [0.2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.001, 0.5))
def test_holm_rejects_what_its_steps_reject(p_values: list[float], alpha: float) -> None:
    rejected: set[int] = set()
    for rank, k in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        if p_values[k] * (len(p_values) - rank) > alpha:
            break
        rejected.add(k)
    adjusted = holm(p_values)
    assert {k for k, p in enumerate(adjusted) if p <= alpha} == rejected
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))
