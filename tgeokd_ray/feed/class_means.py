"""The teacher's mean distribution per true class: sums and counts that merge, from shards to the whole. C classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ClassMeans:
    """Sums [C, C] in float64 of the distributions of rows of each class (row c: rows of class c), and rows per class.

    Merging is addition, in a fixed order, so the means do not depend on who scored which shard.
    """

    def __init__(self, num_classes: int) -> None:
        self.sums = np.zeros((num_classes, num_classes))
        self.counts = np.zeros(num_classes, dtype=np.int64)

    def add(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Add the softmax, in float64, of logits [N, C] of rows with these labels [N]."""
        np.add.at(self.sums, labels, probabilities(logits))
        self.counts += np.bincount(labels, minlength=len(self.counts))

    def merge(self, part: Mapping[str, Any]) -> None:
        """Add what `to_json` gave for other rows."""
        self.sums += np.asarray(part["sums"])
        self.counts += np.asarray(part["counts"], dtype=np.int64)

    def to_json(self) -> dict[str, Any]:
        """Plain lists; floats survive JSON exactly."""
        return {"sums": self.sums.tolist(), "counts": self.counts.tolist()}

    def means(self) -> list[list[float] | None]:
        """Per class the mean distribution [C]; None, never zeros, for a class without rows."""
        return [
            (row / count).tolist() if count else None
            for row, count in zip(self.sums, self.counts.tolist(), strict=True)
        ]

    @classmethod
    def merged(cls, parts: Sequence[Mapping[str, Any]], num_classes: int) -> ClassMeans:
        """The sum of the parts in their order."""
        whole = cls(num_classes)
        for part in parts:
            whole.merge(part)
        return whole


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """The softmax of logits [N, C], in float64."""
    scaled = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = scaled / scaled.sum(axis=1, keepdims=True)
    return shares
