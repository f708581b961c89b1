"""How much better one model is than another on the same rows, and how much of that may be chance."""

from __future__ import annotations

import math

import numpy as np

from tgeokd_ray.metrics.evaluation import Evaluation
from tgeokd_ray.metrics.intervals import METRICS, Floats, auc_influence, row_values
from tgeokd_ray.metrics.probabilities import log_odds


def paired_gain(ours: Evaluation, theirs: Evaluation, metric: str) -> tuple[float, float] | None:
    """(gain, its standard error) of `metric` ("auc", "nll" or "accuracy"), positive where `ours` is better, from the
    rows of both passes, which must be the same in the same order.

    NLL and accuracy are means of one value a row, by the rows' weights; the error of an AUC is that of its placement
    values (DeLong et al., 1988). None for another metric, where it is undefined, for an AUC of rows with weights and
    once rows have been folded. ValueError where the labels of the two passes differ.
    """
    if metric not in METRICS or not (ours.exact and theirs.exact):
        return None
    (logits, labels, weights), (others, same, _) = ours.scores.rows(), theirs.scores.rows()
    if not np.array_equal(labels, same):
        raise ValueError("a paired gain needs two passes over the same rows in the same order")
    shares = np.ones(len(labels)) if weights is None else weights
    if (shares > 0).sum() < 2 or (weights is not None and metric == "auc"):
        return None
    if metric != "auc":
        values = row_values(logits, labels, metric) - row_values(others, labels, metric)
        return _weighted(-values if metric == "nll" else values, shares)
    one, other = (auc_influence(log_odds(part), labels, ours.num_classes) for part in (logits, others))
    if one is None or other is None:
        return None
    influence = one[1] - other[1]
    return one[0] - other[0], float(influence.std(ddof=1)) / math.sqrt(len(influence))


def _weighted(values: Floats, weights: Floats) -> tuple[float, float]:
    """The weighted mean and its standard error, from the squared deviations of rows that are drawn independently; rows
    that weigh alike have that of their plain mean."""
    shares = weights / weights.sum()
    mean = float(shares @ values)
    rows = 1 / float(shares @ shares)  # as many as rows of one weight would be
    return mean, math.sqrt(float(shares**2 @ (values - mean) ** 2) * rows / (rows - 1))
