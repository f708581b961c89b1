"""Logits to log-probabilities, log-odds and predictions, row by row in float64. N rows, C classes.

A reduction over two columns is one operation on them: the same digits in a fifth of the time of numpy's over an axis.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """Log-probabilities [N, C], exact to rounding for any finite float32 logits (no overflow)."""
    shifted = logits.astype(np.float64)
    if shifted.shape[1] == 2:
        shifted -= np.maximum(shifted[:, 0], shifted[:, 1])[:, None]
        powers = np.exp(shifted)
        total = (powers[:, 0] + powers[:, 1])[:, None]
    else:
        shifted -= shifted.max(axis=1, keepdims=True)
        total = np.exp(shifted).sum(axis=1, keepdims=True)
    result: Floats = shifted - np.log(total)
    return result


def predicted_class(logits: NDArray[np.floating]) -> NDArray[np.int64]:
    """The class with the largest logit [N], the first of equal ones."""
    if logits.shape[1] == 2:
        return (logits[:, 1] > logits[:, 0]).astype(np.int64)
    largest: NDArray[np.int64] = logits.argmax(axis=1)
    return largest


def log_odds(logits: NDArray[np.floating]) -> Floats:
    """`log p_c - log(1 - p_c)` of every class [N, C]: orders rows as p_c does, and still where p_c rounds to 0 or 1.

    Two classes: only class 1, the margin `z_1 - z_0`, as [N, 1].
    """
    scores = logits.astype(np.float64)
    if scores.shape[1] == 2:
        return scores[:, 1:] - scores[:, :1]
    rows, top = np.arange(len(scores)), scores.argmax(axis=1)
    highest = scores[rows, top].copy()
    powers = np.exp(scores - highest[:, None])
    others = powers.sum(axis=1, keepdims=True) - powers
    others[rows, top] = 1.0  # a total minus its own largest part cancels: that class is done by itself below
    odds: Floats = scores - highest[:, None] - np.log(others)
    rest = scores.copy()
    rest[rows, top] = -np.inf
    second = rest.max(axis=1)
    odds[rows, top] = highest - second - np.log(np.exp(rest - second[:, None]).sum(axis=1))
    return odds
