"""Teachers combined into one that fits labels, or one teacher corrected by them: multinomial logistic stacking.

N rows, K sources, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.errors import DataError
from tgeokd_ray.feed.class_means import probabilities

STEPS = 100
CLOSE = 1e-10  # of the Newton decrement
HALVINGS = 40
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stacker:
    """`logits = sum over sources of scale_k z_k + bias`: `scales` [K], `bias` [C], and the mean negative log-likelihood
    of the labels of `rows` rows where each scale is 1 / K and the bias 0, and where it was fitted."""

    scales: Floats
    bias: Floats
    nll_before: float
    nll_after: float
    rows: int

    def __call__(self, sources: NDArray[np.floating]) -> NDArray[np.float32]:
        """Logits [N, C] of what the sources say, [N, K, C]."""
        found: NDArray[np.float32] = (np.tensordot(sources, self.scales, (1, 0)) + self.bias).astype(np.float32)
        return found

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        numbers = {"scales": self.scales.tolist(), "bias": self.bias.tolist()}
        return numbers | {"nll_before": self.nll_before, "nll_after": self.nll_after, "rows": self.rows}


def fit_stacker(
    sources: NDArray[np.floating], labels: NDArray[np.integer], weights: NDArray[np.floating] | None = None
) -> Stacker:
    """The scales and biases under which the labels [N] are most likely, given logits [N, K, C]; in float64.

    With one source it is a temperature and a bias per class, a form of the vector scaling of Guo et al. (ICML 2017,
    section 4.2). A normal prior of unit variance around no change, worth one row, keeps both finite where rows are
    separable or a class is missing. Convex: Newton's method with halved steps. DataError where no row weighs anything.
    """
    _, num_sources, num_classes = sources.shape
    shares = np.ones(len(sources)) if weights is None else weights.astype(np.float64)
    if not shares.sum() > 0:
        raise DataError("no outer row has a label and a weight to fit a teacher to", fix="label some rows of `outer`")
    shares, prior = shares / shares.sum(), 1 / np.count_nonzero(shares)
    # The derivative of the logits by scales and bias, [N, C, K + C].
    identity = np.broadcast_to(np.eye(num_classes), (len(sources), num_classes, num_classes))
    design = np.concatenate([sources.astype(np.float64).transpose(0, 2, 1), identity], axis=2)
    start = np.concatenate([np.full(num_sources, 1 / num_sources), np.zeros(num_classes)])

    def cost(point: Floats) -> float:
        return _nll(design @ point, labels, shares) + prior / 2 * float(np.square(point - start).sum())

    point = start
    for _ in range(STEPS):
        shown = probabilities(design @ point)
        off = shown.copy()
        off[np.arange(len(labels)), labels] -= 1
        slope = np.einsum("n,nc,ncp->p", shares, off, design, optimize=True) + prior * (point - start)
        mean = np.einsum("nc,ncp->np", shown, design)
        curved = np.einsum("n,nc,ncp,ncq->pq", shares, shown, design, design, optimize=True)
        curved += prior * np.eye(len(point)) - np.einsum("n,np,nq->pq", shares, mean, mean, optimize=True)
        move = np.linalg.solve(curved, slope)
        if slope @ move < CLOSE:
            break
        now = cost(point)
        sizes = (0.5**k for k in range(HALVINGS))
        point = next((at for at in (point - size * move for size in sizes) if cost(at) < now), point)
    before, after = (_nll(design @ one, labels, shares) for one in (start, point))
    return Stacker(point[:num_sources], point[num_sources:], before, after, int(np.count_nonzero(shares)))


def _nll(logits: Floats, labels: NDArray[np.integer], shares: Floats) -> float:
    largest = logits.max(axis=1)
    total = np.log(np.exp(logits - largest[:, None]).sum(axis=1)) + largest
    return float(((total - logits[np.arange(len(labels)), labels]) * shares).sum())
