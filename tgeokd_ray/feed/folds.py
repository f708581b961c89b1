"""Cross-fitting: which fold a row is in, and hiding a fold from the teacher that will score it.

N rows, F folds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tgeokd_ray.feed.rows import Rows
from tgeokd_ray.hashing import key, keyed

# In the fold column: nobody scored the row, and what stands in its logits means nothing.
FOLD_NOBODY = 254
# In the fold column: the mean of all F teachers scored the row, none of which was trained on it.
FOLD_MEAN = 255
_FOLD = key("fold")


def fold_of(row_ids: NDArray[np.int64], folds: int) -> NDArray[np.uint8]:
    """The fold [N] of each row, by hash of its id: it stays when the table grows."""
    hashed = keyed(row_ids.astype(np.int64).view(np.uint64), _FOLD)
    return (hashed % np.uint64(folds)).astype(np.uint8)


def of_fold(rows: Rows, fold: int, folds: int) -> Rows:
    """The rows of one fold that have a label, for measuring a model that has not learned from them."""
    own = torch.from_numpy(fold_of(rows.row_id.numpy(), folds) == fold) & (rows.labels >= 0)
    return rows.take(own.nonzero().squeeze(-1))


@dataclass(frozen=True)
class HiddenFold:
    """Rows of one fold weigh nothing: they are served with the others, so that the batches of all F teachers hold the
    same rows, but teach nothing."""

    fold: int
    folds: int

    def __call__(self, rows: Rows) -> Rows:
        seen = torch.from_numpy(fold_of(rows.row_id.numpy(), self.folds) != self.fold)
        return replace(rows, weights=rows.weights * seen)
