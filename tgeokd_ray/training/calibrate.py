"""One temperature that makes a teacher from elsewhere as sure of its classes as it is right: calibration, by labels.

N rows, C classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.errors import DataError

LEAST, GREATEST = 1e-2, 1e2
STEPS = 200  # halvings of the logarithm's range: far below the precision of float64
Logits = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """The temperature that the logits are divided by, and the mean negative log-likelihood of the labels of `rows` rows
    before and after. `at_limit`: the likelihood would still grow beyond the range 0.01 to 100."""

    temperature: float
    nll_before: float
    nll_after: float
    rows: int
    at_limit: bool

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def fit_temperature(
    logits: NDArray[np.float32], labels: NDArray[np.integer], weights: NDArray[np.floating] | None = None
) -> Calibration:
    """Temperature scaling (Guo et al., ICML 2017, section 4.2): the T > 0 that minimises the weighted mean NLL of
    `logits / T`, [N, C] with labels [N], in float64.

    The NLL is convex in 1 / T, so the root of its slope is bracketed and halved; a limit of 0.01 to 100 is kept.
    """
    z = logits.astype(np.float64)
    shares = np.ones(len(z)) if weights is None else weights.astype(np.float64)
    if not shares.sum() > 0:
        raise DataError("--calibrate: all valid rows weigh 0", fix="weigh some of them, or leave --calibrate out")
    shares = shares / shares.sum()
    low, high = np.log(1 / GREATEST), np.log(1 / LEAST)
    slopes = [_slope(z, labels, shares, np.exp(end)) for end in (low, high)]
    if slopes[0] >= 0 or slopes[1] <= 0:
        found, at_limit = (low if slopes[0] >= 0 else high), True
    else:
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if _slope(z, labels, shares, np.exp(middle)) > 0 else (middle, high)
        found, at_limit = (low + high) / 2, False
    inverse = float(np.exp(found))
    before, after = (_nll(z, labels, shares, one) for one in (1.0, inverse))
    return Calibration(1 / inverse, before, after, len(z), at_limit)


def _log_probabilities(z: Logits, inverse: float) -> Logits:
    scaled = z * inverse
    scaled -= scaled.max(axis=1, keepdims=True)
    logs: Logits = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return logs


def _nll(z: Logits, labels: NDArray[np.integer], shares: Logits, inverse: float) -> float:
    return float(-(_log_probabilities(z, inverse)[np.arange(len(z)), labels] * shares).sum())


def _slope(z: Logits, labels: NDArray[np.integer], shares: Logits, inverse: float) -> float:
    """The derivative of the NLL by 1 / T: mean logit under the model, less the label's."""
    probabilities = np.exp(_log_probabilities(z, inverse))
    return float((((probabilities * z).sum(axis=1) - z[np.arange(len(z)), labels]) * shares).sum())
