"""The scores of a pass, as rows while they are few and as histograms once they are many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.metrics.histogram import NUM_BINS, AucHistogram
from tgeokd_ray.metrics.probabilities import log_odds
from tgeokd_ray.metrics.ranking import Ranking, rank

Floats = NDArray[np.float64]


class Scores:
    """Logits [n, C], labels and weights of up to `exact_rows` rows; beyond that one histogram per ranked class.

    Ranked are the log-odds of each class against the rest; with two classes only those of class 1. Whether the rows
    have been folded depends on their number alone, never on how they were added or merged.
    """

    def __init__(self, num_classes: int, exact_rows: int) -> None:
        self.num_classes, self.exact_rows = num_classes, exact_rows
        self.ranked = [1] if num_classes == 2 else list(range(num_classes))
        self.num_rows = 0
        self._parts: list[tuple[NDArray[np.float32], NDArray[np.int64], Floats | None]] = []
        self._histograms: list[AucHistogram] = []

    @property
    def exact(self) -> bool:
        """Whether every row is still kept."""
        return not self._histograms

    def add(self, logits: NDArray[np.float32], labels: NDArray[np.int64], weights: Floats | None) -> None:
        """Keep or count rows that have been checked."""
        self.num_rows += len(labels)
        self._parts.append((logits.copy(), labels, None if weights is None else weights.copy()))
        self._fold()

    def merge(self, other: Scores) -> Scores:
        """The rows of both."""
        merged = Scores(self.num_classes, self.exact_rows)
        merged.num_rows = self.num_rows + other.num_rows
        merged._parts = [*self._parts, *other._parts]
        if self._histograms and other._histograms:
            merged._histograms = [a.merge(b) for a, b in zip(self._histograms, other._histograms, strict=True)]
        elif self._histograms or other._histograms:
            merged._histograms = [a.merge(AucHistogram()) for a in self._histograms or other._histograms]
        merged._fold()
        return merged

    def rankings(self) -> list[Ranking]:
        """One ranking per ranked class, positives being the rows of that class."""
        if self._histograms:
            return [histogram.ranking() for histogram in self._histograms]
        logits, labels, weights = self.rows()
        odds = log_odds(logits)
        return [rank(odds[:, column], labels == c, weights) for column, c in enumerate(self.ranked)]

    def rows(self) -> tuple[NDArray[np.float32], NDArray[np.int64], Floats | None]:
        """Logits [n, C], labels [n] and weights [n] (None: one each) of the rows that are kept: all or none."""
        if not self._parts:
            return np.zeros((0, self.num_classes), np.float32), np.zeros(0, np.int64), None
        logits, labels, weights = zip(*self._parts, strict=True)
        joined = None
        if any(part is not None for part in weights):
            joined = np.concatenate([_filled(w, len(y)) for w, y in zip(weights, labels, strict=True)])
        return np.concatenate(logits), np.concatenate(labels), joined

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The same names and types in either state; filled cells of the histograms [K, 2, bins] by flat index."""
        logits, labels, weights = self.rows()
        cells = np.concatenate([h.counts.reshape(-1) for h in self._histograms] or [np.zeros(0)])
        filled = np.flatnonzero(cells)
        return {
            "logits": logits,
            "labels": labels,
            "weights": np.zeros(0) if weights is None else weights,
            "cells": filled,
            "counts": cells[filled],
        }

    @classmethod
    def from_arrays(
        cls, num_classes: int, exact_rows: int, num_rows: int, arrays: dict[str, NDArray[np.generic]]
    ) -> Scores:
        """The inverse of `to_arrays`."""
        scores = cls(num_classes, exact_rows)
        scores.num_rows = num_rows
        if num_rows <= exact_rows:
            weights = arrays["weights"].astype(np.float64) if len(arrays["weights"]) else None
            logits, labels = arrays["logits"].astype(np.float32), arrays["labels"].astype(np.int64)
            scores._parts = [(logits, labels, weights)]
            return scores
        cells = np.zeros((len(scores.ranked), 2, NUM_BINS))
        cells.reshape(-1)[arrays["cells"].astype(np.int64)] = arrays["counts"]
        for counts in cells:
            histogram = AucHistogram()
            histogram.counts = counts
            scores._histograms.append(histogram)
        return scores

    def _fold(self) -> None:
        if self.num_rows <= self.exact_rows:
            return
        self._histograms = self._histograms or [AucHistogram() for _ in self.ranked]
        for logits, labels, weights in self._parts:
            odds = log_odds(logits)
            for column, c in enumerate(self.ranked):
                self._histograms[column].add_rows(odds[:, column], labels == c, weights)
        self._parts = []


def _filled(weights: Floats | None, num_rows: int) -> Floats:
    return np.ones(num_rows) if weights is None else weights
