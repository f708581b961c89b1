"""An evaluation merges like one pass and agrees with scikit-learn."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest
from evaluations import evaluated, sample
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, log_loss, recall_score, roc_auc_score, roc_curve

from tgeokd_ray.metrics import Evaluation
from tgeokd_ray.metrics.probabilities import log_softmax

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
