"""How much of a figure is chance: intervals over rows and over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tgeokd_ray.metrics.checks import class_labels, finite_scores
from tgeokd_ray.metrics.histogram import bin_index
from tgeokd_ray.metrics.probabilities import log_odds, log_softmax

Floats = NDArray[np.float64]
METRICS = ("auc", "nll", "accuracy")


def bootstrap_interval(
    logits: ArrayLike, labels: ArrayLike, metric: str, *, replicates: int = 200, seed: int, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval of `metric` ("auc", "nll" or "accuracy", as in `Evaluation.results`) over resampled rows.

    Every row is drawn a Poisson(1) number of times (Chamandy et al., 2012). NLL and accuracy are means of one value a
    row; AUC is taken to first order in the draws, by its placement values (DeLong et al., 1988), and kept within 0..1.
    Rows whose values agree to 2**-7 are drawn together, so that a million rows take about a second. None where the
    metric is undefined. The same seed gives the same interval for any order of the rows.
    ValueError for another metric.
    """
    values = finite_scores(logits)
    num_classes = values.shape[1]
    classes = class_labels(labels, num_classes)
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if not len(classes):
        return None
    order = np.lexsort((*values.T, classes))  # every sum below has the same digits for any order of the rows
    values, classes = values[order], classes[order]
    if metric == "auc":
        placed = auc_influence(log_odds(values), classes, num_classes)
        if placed is None:
            return None
        centre, influence = placed
    else:
        influence = row_values(values, classes, metric)
        centre = float(influence.mean())
        influence = influence - centre
    draws = _replicates(influence, replicates, np.random.default_rng(seed))
    low, high = np.quantile(centre + draws, [(1 - level) / 2, (1 + level) / 2])
    return (float(max(low, 0.0)), float(high if metric == "nll" else min(high, 1.0)))


def row_values(logits: NDArray[np.float32], labels: NDArray[np.int64], metric: str) -> Floats:
    """NLL or "accuracy" of each row, [N]: the metric is their mean."""
    if metric == "accuracy":
        right: Floats = (logits.argmax(axis=1) == labels).astype(np.float64)
        return right
    nll: Floats = -log_softmax(logits)[np.arange(len(labels)), labels]
    return nll


def auc_influence(odds: Floats, labels: NDArray[np.int64], num_classes: int) -> tuple[float, Floats] | None:
    """Macro AUC and N times what each row adds to it: its placement among the other side, less the AUC."""
    centres, influence = [], np.zeros(len(labels))
    for column, c in enumerate([1] if num_classes == 2 else range(num_classes)):
        sides = labels == c, labels != c
        if not (sides[0].any() and sides[1].any()):
            continue
        positives, negatives = (odds[side, column] for side in sides)
        above = _placement(positives, negatives)
        centres.append(float(above.mean()))
        influence[sides[0]] += (above - centres[-1]) * (len(labels) / len(positives))
        influence[sides[1]] += (1 - _placement(negatives, positives) - centres[-1]) * (len(labels) / len(negatives))
    return (float(np.mean(centres)), influence / len(centres)) if centres else None


def _placement(scores: Floats, others: Floats) -> Floats:
    """Share of `others` below each score, those that tie counting half."""
    ordered = np.sort(others)
    sides = np.searchsorted(ordered, scores, "left"), np.searchsorted(ordered, scores, "right")
    share: Floats = np.add(*sides) / (2.0 * len(ordered))
    return share


def _replicates(influence: Floats, replicates: int, random: np.random.Generator) -> Floats:
    """Mean influence of `replicates` Poisson samples: like values share one draw, of a Poisson sum's own law."""
    _, group, rows = np.unique(bin_index(influence) >> 4, return_inverse=True, return_counts=True)
    means = np.bincount(group, influence) / rows
    draws = np.empty(replicates)
    for replicate in range(replicates):
        counts = random.poisson(rows, len(rows))
        draws[replicate] = counts @ means / max(counts.sum(), 1)
    return draws


def paired_difference(
    values_a: Sequence[float], values_b: Sequence[float], level: float = 0.95
) -> tuple[float, float, float]:
    """Mean of `a - b` over pairs (one per seed) with its two-sided Student t interval: (mean, low, high).

    ValueError for fewer than two pairs, unequal lengths or a value that is not finite.
    """
    if len(values_a) != len(values_b) or len(values_a) < 2 or not np.isfinite([values_a, values_b]).all():
        raise ValueError("need two or more pairs of finite values")
    differences: Floats = np.subtract(values_a, values_b, dtype=np.float64)
    mean = math.fsum(differences) / len(differences)
    half = (
        student_t_quantile((1 + level) / 2, len(differences) - 1)
        * differences.std(ddof=1)
        / math.sqrt(len(differences))
    )
    return mean, float(mean - half), float(mean + half)


def student_t_quantile(probability: float, degrees: int) -> float:
    """Point below which Student's t with whole `degrees` of freedom lies with `probability` in (0.5, 1).

    Bisection of the finite series of its distribution function in the angle atan(t / sqrt(degrees))
    (Abramowitz and Stegun, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        below = (1 + _within(middle, degrees)) / 2 < probability
        low, high = (middle, high) if below else (low, middle)
    return math.tan((low + high) / 2) * math.sqrt(degrees)


def _within(angle: float, degrees: int) -> float:
    """P(|t| <= sqrt(degrees) tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, series = cosine if odd else 1.0, 0.0
    for k in range(degrees // 2):
        series += term
        step = 2 * k + 1 + odd
        term *= cosine * cosine * step / (step + 1)
    return 2 / math.pi * (angle + sine * series) if odd else sine * series
