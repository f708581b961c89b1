"""What an evaluation cannot say is null with a reason; what it must not count is refused by row."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluations import evaluated, sample
from sklearn.metrics import f1_score, roc_auc_score

from tgeokd_ray.errors import DataError, IntegrityError
from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.metrics.probabilities import log_odds


def test_n4_a_missing_class_is_null_with_a_reason_and_the_rest_goes_on() -> None:
    logits, labels = sample(15, 300, 3)
    labels[labels == 1] = 2
    results = evaluated(logits, labels).results()
    assert results["recall"]["1"] is None
    assert results["predicted_over_observed"]["1"] is None
    assert results["undefined"] == {
        "recall.1": "no row of class 1",
        "predicted_over_observed.1": "no row of class 1",
    }
    present = [roc_auc_score(labels == c, log_odds(logits)[:, c]) for c in (0, 2)]
    assert results["auc"] == pytest.approx(np.mean(present), abs=1e-12)
    expected = f1_score(labels, logits.argmax(1), labels=[0, 2], average="macro")
    assert results["macro_f1"] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("classes", [2, 3])
def test_n4_one_class_leaves_no_measure_of_order(classes: int) -> None:
    logits, _ = sample(16, 20, classes)
    results = evaluated(logits, np.zeros(20, int)).results()
    for name in ("auc", "auc_bound", "average_precision"):
        assert results[name] is None
        assert results["undefined"][name] == "every row is of class 0"
    assert results["detection_rate"] == {"0.01": None, "0.001": None}
    assert results["undefined"]["detection_rate"] == "every row is of class 0"
    assert results["nll"] is not None


def test_n4_no_row_of_the_negative_class_leaves_no_detection_rate() -> None:
    logits, labels = sample(17, 60, 3)
    results = evaluated(logits, np.maximum(labels, 1)).results()
    assert results["undefined"]["detection_rate"] == "no row of class 0, the negative one"
    assert results["auc"] is not None


def test_nothing_added_is_all_null() -> None:
    results = Evaluation(2).results()
    assert results["rows"] == 0
    names = (
        "auc",
        "average_precision",
        "nll",
        "accuracy",
        "macro_f1",
        "ece",
        "positive_rate",
        "predicted_over_observed",
    )
    for name in names:
        assert results[name] is None
        assert name in results["undefined"]


@pytest.mark.parametrize("logits", [sample(1, 50, 2)[0], np.full((50, 2), 3e38, np.float32) * [1, -1]])
def test_results_are_json_without_nan(logits: np.ndarray) -> None:
    labels = np.arange(50) % 2
    text = json.dumps(evaluated(logits, labels).results(), allow_nan=False)
    assert json.loads(text)["rows"] == 50


def test_n2_huge_finite_logits_are_counted() -> None:
    logits = np.array([[-3e38, 3e38], [3e38, -3e38], [0, 1], [1, 0]], np.float32)
    results = evaluated(logits, [0, 1, 1, 0]).results()
    assert results["nll"] == pytest.approx((6e38 * 2 + 2 * np.log1p(np.exp(-1))) / 4, rel=1e-6)
    folded = evaluated(logits, [0, 1, 1, 0], exact_rows=0).results()
    assert results["auc"] == folded["auc"] == 0.25


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_n1_scores_that_are_not_finite_are_refused_by_row(value: float) -> None:
    logits, labels = sample(18, 30, 2)
    summary = evaluated(logits, labels)
    before = summary.results()
    bad = logits.copy()
    bad[[3, 5], [0, 1]] = value
    with pytest.raises(IntegrityError) as caught:
        summary.add(bad, labels)
    assert [problem.row for problem in caught.value.problems] == [34, 36]
    assert caught.value.total == 2
    assert summary.results() == before


@pytest.mark.parametrize("label", [-100, -1, 2])
def test_n3_labels_out_of_range_are_refused_by_row(label: int) -> None:
    logits, labels = sample(19, 30, 2)
    labels[4:29] = label
    with pytest.raises(DataError) as caught:
        evaluated(logits, labels)
    assert [problem.row for problem in caught.value.problems] == list(range(5, 25))
    assert caught.value.total == 25
    assert str(label) in str(caught.value)


def test_n3_labels_that_are_not_whole_and_bad_weights_are_refused() -> None:
    logits, labels = sample(20, 3, 2)
    with pytest.raises(DataError, match="whole numbers"):
        evaluated(logits, [0, 1, 2.5])
    for weight in (-1.0, np.nan, np.inf):
        with pytest.raises(DataError, match="row 2: row weight"):
            evaluated(logits, labels, [1.0, weight, 1.0])


def test_shapes_that_disagree_are_refused() -> None:
    logits, labels = sample(21, 4, 3)
    with pytest.raises(ValueError, match="do not fit"):
        Evaluation(2).add(logits, np.minimum(labels, 1))
    with pytest.raises(ValueError, match="do not fit"):
        evaluated(logits, labels[:3])
    with pytest.raises(ValueError, match="do not fit"):
        evaluated(logits, labels, np.ones(3))
    with pytest.raises(ValueError, match="two classes"):
        Evaluation(1)


def test_a_row_of_weight_zero_counts_for_nothing_but_rows() -> None:
    logits, labels = sample(22, 100, 2)
    weights = (np.arange(100) < 60).astype(float)
    weighted, alone = evaluated(logits, labels, weights).results(), evaluated(logits[:60], labels[:60]).results()
    assert weighted.pop("rows") == 100
    assert alone.pop("rows") == 60
    weighted.pop("calibration"), alone.pop("calibration")
    assert weighted == alone
