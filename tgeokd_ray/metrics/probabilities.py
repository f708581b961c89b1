"""Logits to log-probabilities and log-odds, row by row in float64. N rows, C classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """Log-probabilities [N, C], exact to rounding for any finite float32 logits (no overflow)."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


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
