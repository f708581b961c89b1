"""The teacher's mean distribution per true class: sums and counts that merge, from shards to the whole. C classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tgeokd_ray.artifacts import load_tensors, save_tensors

MEANS = "class_means.safetensors"  # the file of an artifact of logits


class ClassMeans:
    """Sums [C, C] in float64 of the distributions of rows of each class (row c: rows of class c), and rows per class.

    Merging is addition, in a fixed order, so the means do not depend on who scored which shard.
    """

    def __init__(self, num_classes: int) -> None:
        self.sums = np.zeros((num_classes, num_classes))
        self.counts = np.zeros(num_classes, dtype=np.int64)

    def add(self, logits: NDArray[np.float32], labels: NDArray[np.integer]) -> None:
        """Add the softmax, in float64, of logits [N, C] of rows with these labels [N]; rows without one (-1) are left
        out."""
        known = labels >= 0
        logits, labels = logits[known], labels[known]
        counts = np.bincount(labels, minlength=len(self.counts))
        shares = probabilities(logits)[np.argsort(labels, kind="stable")]
        present = np.flatnonzero(counts)
        if len(present):
            self.sums[present] += np.add.reduceat(shares, np.cumsum(counts)[present] - counts[present], axis=0)
        self.counts += counts

    @property
    def means(self) -> NDArray[np.float64]:
        """Per class the mean distribution [C, C]; uniform, never zeros, for a class without rows."""
        counts = self.counts[:, None]
        return np.where(counts > 0, self.sums / np.maximum(counts, 1), 1 / len(self.counts))

    @classmethod
    def merged(cls, parts: Iterable[ClassMeans], num_classes: int) -> ClassMeans:
        """The sum of the parts in their order."""
        whole = cls(num_classes)
        for part in parts:
            whole.sums += part.sums
            whole.counts += part.counts
        return whole

    def save(self, path: Path) -> None:
        """Write `means` and `counts` to a file of safetensors."""
        save_tensors(path, {"means": self.means, "counts": self.counts}, finite=True)


def load_means(path: Path) -> NDArray[np.float32]:
    """The means [C, C] that `ClassMeans.save` wrote; IntegrityError for anything else."""
    means: NDArray[np.float32] = load_tensors(path, finite=True)["means"].float().numpy()
    return means


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The softmax of logits [N, C], in float64."""
    scaled = logits - logits.max(axis=1, keepdims=True, initial=-np.inf).astype(np.float64)
    np.exp(scaled, out=scaled)
    shares: NDArray[np.float64] = scaled / scaled.sum(axis=1, keepdims=True)
    return shares
