"""Everything that is measured in one classification pass, as a summary that merges. N rows, C classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tgeokd_ray.metrics.checks import class_labels, finite_scores, row_weights
from tgeokd_ray.metrics.exact_sums import ExactSums
from tgeokd_ray.metrics.intervals import bootstrap_interval
from tgeokd_ray.metrics.probabilities import log_softmax, predicted_class
from tgeokd_ray.metrics.results import Counts, summarise
from tgeokd_ray.metrics.scores import Scores

NUM_BINS = 15


class Evaluation:
    """Mergeable summary of logits against labels: `add` batches, `merge` workers, then `results`.

    `merge` is associative and an empty summary is its identity. Results have the same digits for every cut into batches
    and workers (with row weights: wherever their sums are exact in float64). AUC and the other measures of order are
    exact up to `exact_rows` rows; beyond, they come from a histogram and `auc_bound` says how far off AUC can be.
    Memory: 4C bytes a row up to there, then at most 16 MiB for each ranked class (one of two, else C).
    """

    def __init__(self, num_classes: int, *, exact_rows: int = 2_000_000, negative_class: int = 0) -> None:
        if num_classes < 2 or not 0 <= negative_class < num_classes:
            raise ValueError(f"need two classes and a negative one among them, got {num_classes} and {negative_class}")
        self.num_classes, self.negative_class = num_classes, negative_class
        self.confusion: NDArray[np.float64] = np.zeros((num_classes, num_classes))  # [label, prediction]
        self.bins: NDArray[np.float64] = np.zeros((2, NUM_BINS))  # rows, and rows predicted right, by confidence
        self.sums = ExactSums(1 + num_classes + NUM_BINS)  # NLL; probability of each class; confidence in each bin
        self.scores = Scores(num_classes, exact_rows)

    @property
    def num_rows(self) -> int:
        """Rows added so far."""
        return self.scores.num_rows

    def add(self, logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Count `logits` float32 [N, C] against `labels` [N]; `weights` [N] >= 0 count rows (None: one each).

        IntegrityError names rows with a NaN or Inf, DataError labels outside 0..C-1 and unusable weights; rows count
        from 1 since the first `add`. Nothing of a refused batch is counted. ValueError if the shapes disagree.
        """
        first = self.num_rows + 1
        values, classes = finite_scores(logits, first), class_labels(labels, self.num_classes, first)
        if values.shape != (len(classes), self.num_classes):
            raise ValueError(f"logits {values.shape} do not fit {len(classes)} labels of {self.num_classes} classes")
        counts = None if weights is None else row_weights(weights, first)
        if counts is not None and counts.shape != classes.shape:
            raise ValueError(f"weights {counts.shape} do not fit {len(classes)} labels")
        if len(classes):
            self._count(values, classes, np.ones(len(classes)) if counts is None else counts)
            self.scores.add(values, classes, counts)

    def _count(self, logits: NDArray[np.float32], labels: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        rows, predicted = np.arange(len(labels)), predicted_class(logits)
        log_probabilities = log_softmax(logits)
        probabilities = np.exp(log_probabilities)
        confidence = probabilities[rows, predicted]
        bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)
        np.add.at(self.confusion, (labels, predicted), weights)
        np.add.at(self.bins[0], bins, weights)
        np.add.at(self.bins[1], bins, weights * (labels == predicted))
        self.sums.add(np.abs(log_probabilities[rows, labels]) * weights, 0)
        self.sums.add(
            (probabilities * weights[:, None]).reshape(-1), np.tile(1 + np.arange(self.num_classes), len(rows))
        )
        self.sums.add(confidence * weights, 1 + self.num_classes + bins)

    def merge(self, other: Evaluation) -> Evaluation:
        """The summary of both passes; neither is changed. ValueError if they are not of one kind."""
        if self._kind() != other._kind():
            raise ValueError(f"cannot merge summaries of {self._kind()} and {other._kind()}")
        merged = Evaluation(self.num_classes, exact_rows=self.scores.exact_rows, negative_class=self.negative_class)
        merged.confusion = self.confusion + other.confusion
        merged.bins = self.bins + other.bins
        merged.sums = self.sums.merge(other.sums)
        merged.scores = self.scores.merge(other.scores)
        return merged

    def _kind(self) -> tuple[int, int, int]:
        return self.num_classes, self.negative_class, self.scores.exact_rows

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The summary as arrays of fixed names and types, each on one axis, to send to another process."""
        filled = np.flatnonzero(self.sums.halves)
        return {
            "kind": np.array([*self._kind(), self.num_rows]),
            "confusion": self.confusion.reshape(-1),
            "bins": self.bins.reshape(-1),
            "sum_cells": filled,
            "sum_values": self.sums.halves.reshape(-1)[filled],
            **{name: array.reshape(-1) for name, array in self.scores.to_arrays().items()},
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Evaluation:
        """The inverse of `to_arrays`."""
        num_classes, negative_class, exact_rows, num_rows = (int(value) for value in arrays["kind"])
        summary = cls(num_classes, exact_rows=exact_rows, negative_class=negative_class)
        summary.confusion = arrays["confusion"].reshape(num_classes, num_classes).astype(np.float64)
        summary.bins = arrays["bins"].reshape(2, NUM_BINS).astype(np.float64)
        summary.sums.halves.reshape(-1)[arrays["sum_cells"]] = arrays["sum_values"]
        parts = {**arrays, "logits": arrays["logits"].reshape(-1, num_classes)}
        summary.scores = Scores.from_arrays(num_classes, exact_rows, num_rows, parts)
        return summary

    @property
    def exact(self) -> bool:
        """Whether every row is still kept: measures of order are exact, and `interval` can resample rows."""
        return self.scores.exact

    def interval(
        self, metric: str, *, replicates: int = 200, seed: int, level: float = 0.95
    ) -> tuple[float, float] | None:
        """`bootstrap_interval` of the rows of this pass; None where the metric is undefined.

        ValueError once the rows have been folded, or where they have weights.
        """
        logits, labels, weights = self.scores.rows()
        if not self.exact or weights is not None:
            raise ValueError("an interval needs every row, and rows of one weight")
        return bootstrap_interval(logits, labels, metric, replicates=replicates, seed=seed, level=level)

    def results(self) -> dict[str, Any]:
        """JSON-ready measures; null where one is undefined, with the reason in `undefined`: {measure: reason}.

        `auc`, `average_precision`: class 1 of two, else the mean over the classes present against the rest. `macro_f1`:
        mean over the classes present. `recall`: {class: share}. `detection_rate`: {rate of false alarms: share of the
        rows of other classes found} by the log-odds against the negative class. `nll` in nats. `ece`: 15 bins of the
        largest probability, listed in `calibration`. `predicted_over_observed`: sum of probabilities over rows, of
        class 1 of two, else {class: ratio}. `positive_rate`: share of rows not of the negative class.
        """
        counts = Counts(
            num_rows=self.num_rows,
            negative_class=self.negative_class,
            confusion=self.confusion,
            bins=self.bins,
            totals=self.sums.totals(),
            rankings=self.scores.rankings(),
            exact=self.scores.exact,
        )
        return summarise(counts)
