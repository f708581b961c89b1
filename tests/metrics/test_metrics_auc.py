"""AUC of scores, exact and by histogram; scikit-learn is the oracle."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tgeokd_ray.errors import DataError, IntegrityError
from tgeokd_ray.metrics import AucHistogram, Evaluation, auc_exact
from tgeokd_ray.metrics.histogram import NUM_BINS, bin_index

SCORES = {
    "random": lambda random, n: random.normal(size=n) * 3,
    "tied": lambda random, n: random.integers(0, 4, n) / 2,
    "tiny range": lambda random, n: 1 + random.random(n) * 1e-4,
    "huge": lambda random, n: random.normal(size=n) * 1e37,
    "near zero": lambda random, n: random.normal(size=n) * 1e-40,
}


@given(st.sampled_from(sorted(SCORES)), st.integers(0, 10_000), st.integers(2, 300))
def test_exact_agrees_and_the_histogram_keeps_its_bound(kind: str, seed: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    scores = SCORES[kind](random, rows).astype(np.float32)
    labels = np.concatenate([[0, 1], random.integers(0, 2, rows - 2)])
    truth = roc_auc_score(labels, scores)
    assert auc_exact(scores, labels) == pytest.approx(truth, abs=1e-12)
    histogram = AucHistogram()
    histogram.add(scores, labels)
    assert abs(histogram.auc() - truth) <= histogram.bound() + 1e-12


def test_the_bound_is_reached_and_vanishes_where_no_bin_is_mixed() -> None:
    close = AucHistogram()
    close.add([1.0, 1.0001], [0, 1])
    assert (close.auc(), close.bound()) == (0.5, 0.5)
    apart = AucHistogram()
    apart.add([1.0, 2.0, 2.0, 3.0], [0, 1, 1, 0])
    assert (apart.auc(), apart.bound()) == (0.5, 0.0)


def test_the_bound_on_logits_is_small() -> None:
    random = np.random.default_rng(0)
    histogram = AucHistogram()
    histogram.add(random.normal(size=200_000), random.integers(0, 2, 200_000))
    assert histogram.bound() < 2e-4


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1))
def test_bins_never_decrease_in_the_score(values: list[float]) -> None:
    index = bin_index(np.sort(np.array(values, np.float32)))
    assert (np.diff(index) >= 0).all()
    assert index.min() >= 0
    assert index.max() < NUM_BINS


@given(finite.filter(lambda value: abs(value) > 1e-30))
def test_a_bin_spans_less_than_a_two_thousandth_of_its_score(value: float) -> None:
    near, far = np.float32(value), np.float32(value) * np.array([1 - 2**-10, 1 + 2**-10])
    assert bin_index(np.array([near]))[0] not in bin_index(far)


def test_negative_zero_ties_with_zero() -> None:
    assert bin_index(np.array([-0.0]))[0] == bin_index(np.array([0.0]))[0]
    assert auc_exact([0.0, -0.0], [0, 1]) == 0.5


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), max_size=30), st.integers(0, 30))
def test_histograms_merge_like_one_pass(rows: list[tuple[int, int]], cut: int) -> None:
    def counted(part: list[tuple[int, int]]) -> AucHistogram:
        histogram = AucHistogram()
        histogram.add([score for score, _ in part], np.array([label for _, label in part], int))
        return histogram

    merged, whole = counted(rows[:cut]).merge(counted(rows[cut:])), counted(rows)
    assert (merged.auc(), merged.bound()) == (whole.auc(), whole.bound())


def test_n9_four_workers_with_two_million_scores_lie_within_the_stated_bound() -> None:
    """The bound is a share of pairs, so it says the same of 45 million; a merge adds whole numbers."""
    random = np.random.default_rng(9)
    labels = random.random(2_000_000) < 0.04
    odds = random.normal(size=len(labels)).astype(np.float32) + labels
    logits = np.stack([np.zeros_like(odds), odds], axis=1)
    workers = [Evaluation(2, exact_rows=10_000) for _ in range(4)]
    for number, worker in enumerate(workers):
        for part in np.array_split(np.arange(len(labels))[number::4], 3):
            worker.add(logits[part], labels[part].astype(np.int64))
    merged = reduce(Evaluation.merge, workers)
    results = merged.results()
    truth = auc_exact(odds, labels.astype(np.int64))
    assert results["rows"] == len(labels)
    assert 0 < results["auc_bound"] < 2e-4
    assert abs(results["auc"] - truth) <= results["auc_bound"]
    assert truth == pytest.approx(roc_auc_score(labels[:200_000], odds[:200_000]), abs=0.01)


def test_one_class_has_no_auc() -> None:
    assert auc_exact([1.0, 2.0], [1, 1]) is None
    assert auc_exact([], []) is None
    histogram = AucHistogram()
    histogram.add([1.0, 2.0], [0, 0])
    assert histogram.auc() is None
    assert histogram.bound() is None


def test_n1_n3_bad_scores_and_labels_are_refused_by_row() -> None:
    for call in (auc_exact, AucHistogram().add):
        with pytest.raises(IntegrityError, match="row 2: score is not finite"):
            call([0.0, np.nan], [0, 1])
        with pytest.raises(IntegrityError, match="row 1: score is not finite"):
            call([1e39, 0.0], [0, 1])
        with pytest.raises(DataError, match="row 1: label is out of range"):
            call([0.0, 1.0], [-1, 1])
