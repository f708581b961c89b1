"""Paired gains: against the metric itself, against resampled rows, and where there is nothing to say."""

from __future__ import annotations

import numpy as np
import pytest

from tgeokd_ray.metrics import Evaluation, paired_gain

ROWS = 400


def passes(num_classes: int = 2, exact_rows: int = 10_000, weights: bool = False) -> tuple[Evaluation, Evaluation]:
    """A sharper model and a blunter one on the same rows."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, num_classes, ROWS)
    truth = np.eye(num_classes)[labels]
    found = []
    for sharpness, seed in ((2.0, 1), (1.2, 2)):
        noise = np.random.default_rng(seed).normal(size=truth.shape)
        evaluation = Evaluation(num_classes, exact_rows=exact_rows)
        logits = (sharpness * truth + noise).astype(np.float32)
        evaluation.add(logits, labels, np.ones(ROWS) if weights else None)
        found.append(evaluation)
    return found[0], found[1]


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("metric", ["auc", "nll", "accuracy"])
def test_the_gain_is_the_difference_of_the_metrics_and_its_error_that_of_resampled_rows(
    metric: str, num_classes: int
) -> None:
    ours, theirs = passes(num_classes)
    found = paired_gain(ours, theirs, metric)
    assert found is not None
    sign = -1 if metric == "nll" else 1
    assert found[0] == pytest.approx(sign * (ours.results()[metric] - theirs.results()[metric]), abs=1e-9)
    assert found[0] > 0
    assert paired_gain(theirs, ours, metric) == pytest.approx((-found[0], found[1]))
    rng, draws = np.random.default_rng(7), []
    kept = [one.scores.rows()[:2] for one in (ours, theirs)]
    for _ in range(300):
        index = rng.integers(0, ROWS, ROWS)
        pair = []
        for logits, labels in kept:
            again = Evaluation(num_classes)
            again.add(logits[index], labels[index])
            pair.append(again.results()[metric])
        draws.append(pair[0] - pair[1])
    assert found[1] == pytest.approx(np.std(draws), rel=0.2)


def test_where_there_is_nothing_to_say() -> None:
    ours, theirs = passes()
    assert paired_gain(ours, theirs, "macro_f1") is None
    assert paired_gain(*passes(exact_rows=10), "nll") is None, "rows were folded"
    assert paired_gain(*passes(weights=True), "auc") is None
    assert paired_gain(*passes(weights=True), "nll") == pytest.approx(paired_gain(*passes(), "nll"), rel=1e-9)
    same = paired_gain(ours, ours, "auc")
    assert same == (0.0, 0.0)
    one_class = [Evaluation(2), Evaluation(2)]
    for evaluation in one_class:
        evaluation.add(np.zeros((3, 2), np.float32), np.zeros(3, np.int64))
    assert paired_gain(*one_class, "auc") is None
    with pytest.raises(ValueError, match="same rows"):
        paired_gain(ours, one_class[0], "nll")


def test_rows_count_by_their_weights() -> None:
    ours, theirs = passes()
    (logits, labels, _), (others, _, _) = ours.scores.rows(), theirs.scores.rows()
    weights = np.random.default_rng(5).exponential(size=ROWS)
    weights[:50] = 0
    pair = [Evaluation(2), Evaluation(2)]
    for evaluation, values in zip(pair, (logits, others), strict=True):
        evaluation.add(values, labels, weights)
    gain, error = paired_gain(*pair, "nll")  # type: ignore[misc]
    assert gain == pytest.approx(pair[1].results()["nll"] - pair[0].results()["nll"], abs=1e-9)
    plain = paired_gain(ours, theirs, "nll")
    assert plain is not None
    assert plain[1] < error < 3 * plain[1], "fewer rows, in effect"
