"""What a score, a label and a row weight must be before it is counted; all bad rows of a call at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tgeokd_ray.errors import SHOWN, DataError, IntegrityError, Problem


def finite_scores(scores: ArrayLike, first_row: int = 1) -> NDArray[np.float32]:
    """`scores` as float32, rows on the first axis. IntegrityError names every row (from `first_row`) with a NaN or Inf.

    A float64 value beyond float32's range is not finite here.
    """
    with np.errstate(over="ignore"):
        values: NDArray[np.float32] = np.ascontiguousarray(scores, dtype=np.float32)
    if not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        problems = _problems("score is not finite", "finite numbers", bad, values, first_row)
        raise IntegrityError(problems, "find what made them: a damaged file or a diverged model", len(bad))
    return values


def class_labels(labels: ArrayLike, num_classes: int, first_row: int = 1) -> NDArray[np.int64]:
    """`labels` as int64, each in 0..num_classes-1. DataError names every other row (-1, -100 and C included)."""
    values = np.asarray(labels)
    if values.size and values.dtype.kind not in "biu":
        raise DataError([Problem("labels must be whole numbers", expected="int64", got=str(values.dtype))])
    bad = np.flatnonzero((values < 0) | (values >= num_classes))
    if len(bad):
        problems = _problems("label is out of range", f"0..{num_classes - 1}", bad, values, first_row)
        raise DataError(problems, "drop these rows or name their class", len(bad))
    return values.astype(np.int64)


def row_weights(weights: ArrayLike, first_row: int = 1) -> NDArray[np.float64]:
    """`weights` as float64, each finite and >= 0. DataError names every other row."""
    values: NDArray[np.float64] = np.asarray(weights, dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        problems = _problems("row weight is not usable", "a finite number >= 0", bad, values, first_row)
        raise DataError(problems, "mend the weight column", len(bad))
    return values


def _problems(what: str, rule: str, bad: NDArray[Any], values: NDArray[Any], first_row: int) -> list[Problem]:
    shown = bad[:SHOWN].tolist()
    return [Problem(what, row=first_row + row, expected=rule, got=str(values[row].tolist())) for row in shown]
