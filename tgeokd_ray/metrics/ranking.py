"""What depends on the order of scores only: AUC, average precision, detection rate at a rate of false alarms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tgeokd_ray.metrics.checks import class_labels, finite_scores

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """Weight of negatives and positives at each distinct score, in ascending order of the score: [K] and [K].

    Scores that stand together count as tied.
    """

    negatives: Floats
    positives: Floats

    @property
    def defined(self) -> bool:
        """Whether both sides have weight; the measures below are defined only then."""
        return bool(self.negatives.sum() > 0 and self.positives.sum() > 0)

    def flipped(self) -> Ranking:
        """The same rows with the sides exchanged and every score negated."""
        return Ranking(self.positives[::-1], self.negatives[::-1])

    def auc(self) -> float:
        """Probability that a positive scores above a negative, ties counting half."""
        below = np.cumsum(self.negatives) - self.negatives
        pairs = self.positives * (below + self.negatives / 2)
        return float(pairs.sum() / (self.positives.sum() * self.negatives.sum()))

    def tied(self) -> float:
        """Share of (positive, negative) pairs whose scores stand together."""
        return float((self.positives * self.negatives).sum() / (self.positives.sum() * self.negatives.sum()))

    def average_precision(self) -> float:
        """Sum over thresholds of (gain in recall) x precision, without interpolation (as scikit-learn)."""
        true, false = np.cumsum(self.positives[::-1]), np.cumsum(self.negatives[::-1])
        return float((self.positives[::-1] * (true / (true + false))).sum() / true[-1])

    def detection_rate(self, false_alarms: float) -> float:
        """Largest share of positives above a threshold that at most `false_alarms` of the negatives exceed.

        No point between two thresholds is interpolated: with fewer than 1 / `false_alarms` negatives, none may exceed.
        """
        true, false = np.cumsum(self.positives[::-1]), np.cumsum(self.negatives[::-1])
        allowed = np.flatnonzero(false / false[-1] <= false_alarms)
        return float(true[allowed[-1]] / true[-1]) if len(allowed) else 0.0


def rank(scores: Floats, positive: NDArray[np.bool_], weights: Floats | None = None) -> Ranking:
    """Ranking of `scores` [N]; `positive` [N] marks the side, `weights` [N] counts rows (None: one each).

    The result does not depend on the order of rows: equal rows are summed in the order of their weights.
    """
    if weights is None:
        order = np.argsort(scores)
        counts = np.ones(len(scores))
    else:
        kept = weights > 0
        scores, positive, weights = scores[kept], positive[kept], weights[kept]
        order = np.lexsort((weights, positive, scores))
        counts = weights[order]
    if not len(order):
        return Ranking(np.zeros(0), np.zeros(0))
    ordered, side = scores[order], positive[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return Ranking(np.add.reduceat(counts * ~side, starts), np.add.reduceat(counts * side, starts))


def auc_exact(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under the ROC curve of `scores` [N] for `labels` [N] in {0, 1}, ties counting half.

    None if a class is missing. Scores are taken as float32.
    IntegrityError names rows with a NaN or Inf, DataError those with another label.
    """
    ranking = rank(finite_scores(scores).astype(np.float64), class_labels(labels, 2) == 1)
    return ranking.auc() if ranking.defined else None
