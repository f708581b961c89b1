"""AUC over any number of rows: a histogram over the top bits of the float32 score, merged by addition."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tgeokd_ray.metrics.checks import class_labels, finite_scores
from tgeokd_ray.metrics.ranking import Ranking

BITS = 20
NUM_BINS = 1 << BITS
CHUNK_ROWS = 1 << 20
LARGEST = np.finfo(np.float32).max


def bin_index(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Bin of each score, 0..2**20 - 1, never decreasing in the score: sign, exponent and 11 bits of the mantissa.

    A bin spans 2**-11 of its score. Scores beyond float32 count as its largest; -0 counts as 0.
    """
    values = np.clip(scores, -LARGEST, LARGEST).astype(np.float32) + np.float32(0)
    bits = values.view(np.uint32)
    orderable = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    index: NDArray[np.int64] = (orderable >> np.uint32(32 - BITS)).astype(np.int64)
    return index


class AucHistogram:
    """Counts [2, 2**20] of negatives and positives by score bin; whole numbers are exact up to 2**53.

    `auc()` counts the pairs of one bin half. Pairs of two bins are always in the right order, so the exact value lies
    within `bound()`, half the share of pairs that fall into one bin: computed from the contents, 0 if no bin is mixed.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.float64] = np.zeros((2, NUM_BINS))

    def add(self, scores: ArrayLike, labels: ArrayLike) -> None:
        """Count `scores` [N] with `labels` [N] in {0, 1}; NaN, Inf and other labels are refused by row."""
        self.add_rows(finite_scores(scores), class_labels(labels, 2) == 1)

    def add_rows(
        self,
        scores: NDArray[np.floating],
        positive: NDArray[np.bool_],
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Count finite `scores` [N] whose side is known, each as its weight (None: 1)."""
        cells = self.counts.reshape(-1)
        for start in range(0, len(scores), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            index = bin_index(scores[rows]) + positive[rows] * NUM_BINS
            np.add.at(cells, index, 1.0 if weights is None else weights[rows])

    def merge(self, other: AucHistogram) -> AucHistogram:
        """The histogram of both."""
        merged = AucHistogram()
        merged.counts = self.counts + other.counts
        return merged

    def ranking(self) -> Ranking:
        """The filled bins as distinct scores."""
        filled = np.flatnonzero(self.counts.any(axis=0))
        return Ranking(*self.counts[:, filled])

    def auc(self) -> float | None:
        """Area under the ROC curve, within `bound()` of the exact one; None if a class is missing."""
        ranking = self.ranking()
        return ranking.auc() if ranking.defined else None

    def bound(self) -> float | None:
        """How far `auc()` can be from the exact value; None if a class is missing."""
        ranking = self.ranking()
        return ranking.tied() / 2 if ranking.defined else None
