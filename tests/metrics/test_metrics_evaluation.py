"""An evaluation merges like one pass, agrees with scikit-learn, and says why a measure is undefined."""

from __future__ import annotations

import json
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, log_loss, recall_score, roc_auc_score, roc_curve

from tgeokd_ray.errors import DataError, IntegrityError
from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.metrics.probabilities import log_odds, log_softmax


def sample(seed: int, rows: int, classes: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    logits = 2 * random.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += 1
    return (np.round(logits) if ties else logits).astype(np.float32), labels


def evaluated(logits: Any, labels: Any, weights: Any = None, **options: Any) -> Evaluation:
    summary = Evaluation(np.asarray(logits).shape[1], **options)
    summary.add(logits, labels, weights)
    return summary


parts = st.builds(sample, st.integers(0, 10_000), st.integers(0, 40), st.just(3), st.booleans())


@given(st.lists(parts, min_size=1, max_size=5), st.sampled_from([0, 20, 1000]), st.booleans())
def test_merge_equals_one_pass_to_the_digit(batches: list[Any], exact_rows: int, right_first: bool) -> None:
    whole = Evaluation(3, exact_rows=exact_rows)
    for logits, labels in batches:
        whole.add(logits, labels)
    summaries = [evaluated(*batch, exact_rows=exact_rows) for batch in batches]
    if right_first:
        merged = reduce(lambda right, left: left.merge(right), reversed(summaries))
    else:
        merged = reduce(Evaluation.merge, summaries)
    assert merged.results() == whole.results()
    backwards = reduce(Evaluation.merge, reversed(summaries))
    assert backwards.results() == whole.results()


@given(parts, parts, st.sampled_from([0, 1000]))
def test_merge_equals_one_pass_with_row_weights(first: Any, second: Any, exact_rows: int) -> None:
    random = np.random.default_rng(5)
    weights = [random.random(len(labels)) * 3 for _, labels in (first, second)]
    whole = Evaluation(3, exact_rows=exact_rows)
    merged = Evaluation(3, exact_rows=exact_rows)
    for (logits, labels), w in zip((first, second), weights, strict=True):
        whole.add(logits, labels, w)
        merged = evaluated(logits, labels, w, exact_rows=exact_rows).merge(merged)
    a, b = whole.results(), merged.results()
    for name in ("auc", "average_precision", "nll", "accuracy", "macro_f1", "ece", "positive_rate"):
        assert a[name] == (None if b[name] is None else pytest.approx(b[name], abs=1e-12, rel=1e-12))


@given(parts, st.sampled_from([0, 1000]))
def test_empty_is_the_identity_of_merge(batch: Any, exact_rows: int) -> None:
    summary, empty = evaluated(*batch, exact_rows=exact_rows), Evaluation(3, exact_rows=exact_rows)
    assert summary.merge(empty).results() == summary.results() == empty.merge(summary).results()


def test_merge_changes_neither_side_and_refuses_another_kind() -> None:
    a, b = evaluated(*sample(0, 30, 2)), evaluated(*sample(1, 50, 2))
    before = a.results(), b.results()
    a.merge(b)
    assert (a.results(), b.results()) == before
    for other in (Evaluation(3), Evaluation(2, negative_class=1), Evaluation(2, exact_rows=7)):
        with pytest.raises(ValueError, match="cannot merge"):
            a.merge(other)


def test_later_changes_of_the_callers_arrays_are_not_seen() -> None:
    logits, labels = sample(3, 40, 2)
    weights = np.ones(40)
    summary = evaluated(logits, labels, weights)
    before = summary.results()
    logits[:], weights[:], labels[:] = 0, 7, 0
    assert summary.results() == before


@pytest.mark.parametrize("exact_rows", [0, 1000])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("classes", [2, 4])
def test_arrays_carry_everything(classes: int, weighted: bool, exact_rows: int) -> None:
    logits, labels = sample(1, 100, classes)
    weights = np.arange(100.0) if weighted else None
    summary = evaluated(logits, labels, weights, exact_rows=exact_rows, negative_class=1)
    arrays = summary.to_arrays()
    copy = Evaluation.from_arrays(arrays)
    assert copy.results() == summary.results()
    more = evaluated(*sample(2, 50, classes), exact_rows=exact_rows, negative_class=1)
    assert copy.merge(more).results() == summary.merge(more).results()
    empty = Evaluation(classes, exact_rows=exact_rows, negative_class=1).to_arrays()
    assert {k: (v.dtype, v.ndim) for k, v in arrays.items()} == {k: (v.dtype, v.ndim) for k, v in empty.items()}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_two_classes_agree_with_scikit_learn(weighted: bool, ties: bool) -> None:
    logits, labels = sample(11, 3000, 2, ties)
    weights = np.random.default_rng(2).integers(0, 4, 3000) / 2.0 if weighted else None
    results = evaluated(logits, labels, weights).results()
    margin = logits[:, 1].astype(float) - logits[:, 0]
    probability = 1 / (1 + np.exp(-margin))
    predicted = logits.argmax(axis=1)
    assert results["auc"] == pytest.approx(roc_auc_score(labels, margin, sample_weight=weights), abs=1e-13)
    precision = average_precision_score(labels, margin, sample_weight=weights)
    assert results["average_precision"] == pytest.approx(precision, abs=1e-13)
    assert results["nll"] == pytest.approx(log_loss(labels, probability, sample_weight=weights), rel=1e-12)
    assert results["accuracy"] == pytest.approx(np.average(predicted == labels, weights=weights), rel=1e-13)
    f1 = f1_score(labels, predicted, average="macro", sample_weight=weights)
    assert results["macro_f1"] == pytest.approx(f1, rel=1e-13)
    recalls = recall_score(labels, predicted, average=None, sample_weight=weights)
    assert list(results["recall"].values()) == pytest.approx(list(recalls), rel=1e-13)
    false, true, _ = roc_curve(labels, margin, sample_weight=weights, drop_intermediate=False)
    for rate, found in results["detection_rate"].items():
        assert found == pytest.approx(true[false <= float(rate)].max(), abs=1e-13)
    observed = np.average(labels, weights=weights)
    assert results["positive_rate"] == pytest.approx(observed, rel=1e-13)
    expected = np.average(probability, weights=weights) / observed
    assert results["predicted_over_observed"] == pytest.approx(expected, rel=1e-12)
    assert results["auc_bound"] == 0
    assert results["undefined"] == {}


@pytest.mark.parametrize("negative", [0, 2])
def test_four_classes_agree_with_scikit_learn(negative: int) -> None:
    logits, labels = sample(12, 2000, 4)
    results = evaluated(logits, labels, negative_class=negative).results()
    powers = np.exp(logits.astype(float))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    assert results["auc"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-12)
    each = [average_precision_score(labels == c, probabilities[:, c]) for c in range(4)]
    assert results["average_precision"] == pytest.approx(np.mean(each), abs=1e-12)
    assert results["nll"] == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    assert results["macro_f1"] == pytest.approx(f1_score(labels, logits.argmax(1), average="macro"), rel=1e-13)
    attack = 1 - probabilities[:, negative]
    false, true, _ = roc_curve(labels != negative, attack, drop_intermediate=False)
    for rate, found in results["detection_rate"].items():
        assert found == pytest.approx(true[false <= float(rate)].max(), abs=1e-13)
    for c, ratio in results["predicted_over_observed"].items():
        assert ratio == pytest.approx(probabilities[:, int(c)].sum() / (labels == int(c)).sum(), rel=1e-12)


def test_detection_rate_of_two_classes_follows_the_negative_class() -> None:
    logits, labels = sample(13, 2000, 2)
    found = evaluated(logits, labels, negative_class=1).results()["detection_rate"]
    false, true, _ = roc_curve(labels == 0, logits[:, 0] - logits[:, 1], drop_intermediate=False)
    assert found["0.01"] == pytest.approx(true[false <= 0.01].max(), abs=1e-13)


@given(st.integers(0, 1000), st.sampled_from([2, 5]))
def test_folded_auc_lies_within_its_bound_of_the_exact_one(seed: int, classes: int) -> None:
    batch = sample(seed, 200, classes)
    exact, folded = evaluated(*batch).results(), evaluated(*batch, exact_rows=100).results()
    if exact["auc"] is not None:
        assert abs(exact["auc"] - folded["auc"]) <= folded["auc_bound"] + 1e-12
        assert folded["auc_bound"] < 0.01
    assert {k: v for k, v in exact.items() if k in ("nll", "ece", "recall")} == {
        k: v for k, v in folded.items() if k in ("nll", "ece", "recall")
    }


def test_rows_are_kept_up_to_exact_rows() -> None:
    logits, labels = sample(4, 101, 2, ties=True)
    assert evaluated(logits[:100], labels[:100], exact_rows=100).results()["auc_bound"] == 0
    assert evaluated(logits, labels, exact_rows=100).results()["auc_bound"] > 0


def test_ece_and_calibration_follow_their_definition() -> None:
    logits, labels = sample(14, 500, 3)
    results = evaluated(logits, labels).results()
    probabilities = np.exp(log_softmax(logits))
    error, listed = 0.0, []
    for low in range(15):
        inside = [i for i, p in enumerate(probabilities) if low / 15 <= p.max() < (low + 1) / 15]
        if inside:
            confidence = np.mean([probabilities[i].max() for i in inside])
            accuracy = np.mean([probabilities[i].argmax() == labels[i] for i in inside])
            error += len(inside) / 500 * abs(confidence - accuracy)
            listed.append({"rows": len(inside), "confidence": confidence, "accuracy": accuracy})
    assert results["ece"] == pytest.approx(error, rel=1e-12)
    assert [pytest.approx(entry, rel=1e-12) for entry in listed] == results["calibration"]


def test_a_missing_class_is_null_with_a_reason_and_the_rest_goes_on() -> None:
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
def test_one_class_leaves_no_measure_of_order(classes: int) -> None:
    logits, _ = sample(16, 20, classes)
    results = evaluated(logits, np.zeros(20, int)).results()
    for name in ("auc", "auc_bound", "average_precision"):
        assert results[name] is None
        assert results["undefined"][name] == "every row is of class 0"
    assert results["detection_rate"] == {"0.01": None, "0.001": None}
    assert results["undefined"]["detection_rate"] == "every row is of class 0"
    assert results["nll"] is not None


def test_no_row_of_the_negative_class_leaves_no_detection_rate() -> None:
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


def test_huge_finite_logits_are_counted() -> None:
    logits = np.array([[-3e38, 3e38], [3e38, -3e38], [0, 1], [1, 0]], np.float32)
    results = evaluated(logits, [0, 1, 1, 0]).results()
    assert results["nll"] == pytest.approx((6e38 * 2 + 2 * np.log1p(np.exp(-1))) / 4, rel=1e-6)
    folded = evaluated(logits, [0, 1, 1, 0], exact_rows=0).results()
    assert results["auc"] == folded["auc"] == 0.25


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused_by_row(value: float) -> None:
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
def test_labels_out_of_range_are_refused_by_row(label: int) -> None:
    logits, labels = sample(19, 30, 2)
    labels[4:29] = label
    with pytest.raises(DataError) as caught:
        evaluated(logits, labels)
    assert [problem.row for problem in caught.value.problems] == list(range(5, 25))
    assert caught.value.total == 25
    assert str(label) in str(caught.value)


def test_labels_that_are_not_whole_and_bad_weights_are_refused() -> None:
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
