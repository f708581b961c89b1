"""Random rows, and their evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np

from tgeokd_ray.metrics import Evaluation


def sample(seed: int, rows: int, classes: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    logits = 2 * random.normal(size=(rows, classes))
    logits[np.arange(rows), labels] += 1
    return (np.round(logits) if ties else logits).astype(np.float32), labels


def evaluated(logits: Any, labels: Any, weights: Any = None, **options: Any) -> Evaluation:
    summary = Evaluation(np.asarray(logits).shape[1], **options)
    summary.add(logits, labels, weights)
    return summary
